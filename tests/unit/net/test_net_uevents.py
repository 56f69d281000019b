# SPDX-License-Identifier: GPL-2.0-or-later
"""Of all that the kernel announces only a network device that appears counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.net.uevents import new_device


def message(*told: str) -> bytes:
    return b"".join(part.encode() + b"\0" for part in ("add@/devices/virtual/net/mrup0", *told))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (("ACTION=add", "SUBSYSTEM=net", "INTERFACE=mrup0", "IFINDEX=7"), "mrup0"),
        (("ACTION=remove", "SUBSYSTEM=net", "INTERFACE=mrup0"), None),
        (("ACTION=add", "SUBSYSTEM=queues"), None),
        (("ACTION=add", "SUBSYSTEM=cpu", "INTERFACE=mrup0"), None),
        ((), None),
    ],
)
def test_only_new_network_devices_count(told: tuple[str, ...], expected: str | None) -> None:
    assert new_device(message(*told)) == expected


@given(st.binary())
def test_anything_may_come(data: bytes) -> None:
    new_device(data)
