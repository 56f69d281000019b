# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.net.stations import sender

QUESTION = bytes.fromhex("0001 0800 06 04 0001 525400000001 0a4d0109 000000000000 0a4d0302")


def test_who_asks_is_known() -> None:
    assert sender(QUESTION + bytes(18)) == ("52:54:00:00:00:01", "10.77.1.9")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        QUESTION[:17],
        QUESTION[:14] + bytes(4) + QUESTION[18:],  # a probe: it has no address yet (RFC 5227)
        b"\x00\x06" + QUESTION[2:],
        QUESTION[:5] + b"\x10" + QUESTION[6:],
    ],
)
def test_what_tells_nothing(packet: bytes) -> None:
    assert sender(packet) is None


@given(packet=st.binary(max_size=64))
def test_any_bytes_are_a_packet_or_not(packet: bytes) -> None:
    found = sender(packet)
    assert found is None or (len(found[0]) == 17 and found[1].count(".") == 3)
