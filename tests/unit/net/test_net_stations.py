# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.net.stations import lease, sender

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
    for read in (sender, lease):
        found = read(packet)
        assert found is None or (len(found[0]) == 17 and found[1].count(".") == 3)


def answer(kind: int, *, address: str = "0a4d0401", reply: int = 2) -> bytes:
    """An IP packet (20 bytes of header) with UDP (8) and a DHCP message."""
    head = bytes([reply, 1, 6, 0]) + bytes(12) + bytes.fromhex(address) + bytes(8)
    client = bytes.fromhex("525400000001") + bytes(10) + bytes(192)
    return (
        b"\x45"
        + bytes(19)
        + bytes(8)
        + head
        + client
        + b"\x63\x82\x53\x63"
        + bytes([0, 1, 1, 9, 53, 1, kind, 255])
    )


def test_what_a_server_gives_is_known() -> None:
    assert lease(answer(5)) == ("52:54:00:00:00:01", "10.77.4.1")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        answer(2),  # an offer
        answer(6),  # a refusal
        answer(5, reply=1),
        answer(5, address="00000000"),
        answer(5)[:-8],
        answer(5).replace(b"\x63\x82", b"\x63\x83"),
    ],
)
def test_what_gives_nothing(packet: bytes) -> None:
    assert lease(packet) is None


@given(options=st.binary(max_size=32))
def test_any_options_give_one_or_not(options: bytes) -> None:
    assert lease(answer(5)[:-8] + options) in (None, ("52:54:00:00:00:01", "10.77.4.1"))
