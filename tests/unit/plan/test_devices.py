# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from multiroot.plan.devices import capabilities, stays


def config(pin: int, *ids: int) -> bytes:
    """A configuration space with these capabilities, from 0x40 on."""
    data = bytearray(256)
    data[0x3D] = pin
    if ids:
        data[0x06], data[0x34] = 0x10, 0x40
    for number, kind in enumerate(ids):
        at = 0x40 + 16 * number
        data[at], data[at + 1] = kind, at + 16 if number + 1 < len(ids) else 0
    return bytes(data)


def test_only_what_is_in_use_and_has_no_msi_stays(tmp_path: Path) -> None:
    driver = tmp_path / "bus/pci/drivers/old"
    driver.mkdir(parents=True)
    for name, data, bound in (
        ("0000:00:01.0", config(1, 0x01, 0x11), True),
        ("0000:00:02.0", config(1, 0x01), True),
        ("0000:00:03.0", config(1), False),
        ("0000:00:04.0", config(0), True),
    ):
        folder = tmp_path / f"bus/pci/devices/{name}"
        folder.mkdir(parents=True)
        (folder / "config").write_bytes(data)
        if bound:
            (folder / "driver").symlink_to(driver)
    assert [str(each) for each in stays(tmp_path)] == [
        "0000:00:02.0 (old): its interrupts are by pin only, not MSI"
    ]


@given(st.binary(max_size=300))
def test_any_bytes_end(data: bytes) -> None:
    assert capabilities(data) <= set(data)
