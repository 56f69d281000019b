# SPDX-License-Identifier: GPL-2.0-or-later
"""What firmware tables and sysfs say about a device, and which devices are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from multiroot.arena.allocator import Extent
from multiroot.device.passthrough import Bar, Function, Translation
from multiroot.device.uapi import Ecam
from multiroot.errors import BadRequestError, ConflictError
from multiroot.passthrough import firmware
from multiroot.passthrough.devices import DeviceState
from multiroot.passthrough.functions import (
    DRIVER,
    Functions,
    acs_wanted,
    check_capabilities,
    config_address,
    parse_address,
    parse_resources,
)
from multiroot.passthrough.messages import state_from_proto, state_to_proto
from multiroot.rpc.v1 import device_pb2

IGB = "0000:01:00.0"


def dmar(*units: int) -> bytes:
    drhds = b"".join(struct.pack("<HHBBHQ", 0, 16, 1, 0, 0, base) for base in units)
    return bytes(48) + drhds + struct.pack("<HHI", 1, 8, 0)


def config(*, msix: bool = True, extended: bytes = b"") -> bytes:
    data = bytearray(0x100)
    data[6] = 0x10
    data[0x34] = 0x40
    data[0x40:0x42] = bytes([0x05, 0x70 if msix else 0])
    if msix:
        data[0x70:0x72] = bytes([0x11, 0])
    return bytes(data) + extended.ljust(0xF00, b"\0")


def test_one_unit_is_found_and_several_are_refused() -> None:
    assert firmware.vtd_registers(dmar(0xFED90000)) == 0xFED90000
    with pytest.raises(ConflictError, match="2 IOMMUs"):
        firmware.vtd_registers(dmar(0xFED90000, 0xFED91000))
    with pytest.raises(ConflictError, match="no IOMMU"):
        firmware.vtd_registers(dmar())
    with pytest.raises(BadRequestError, match="malformed"):
        firmware.vtd_registers(dmar() + struct.pack("<HH", 0, 0))


def test_configuration_space_is_found_by_bus() -> None:
    ecams = [Ecam(0xC0000000, 0, 255, segment=1), Ecam(0xB0000000, 0, 63), Ecam(0xD0000000, 128, 255)]
    assert config_address(ecams, 0x0100) == 0xB0100000
    assert config_address(ecams, 0x8001) == 0xD8001000
    with pytest.raises(ConflictError, match="0x40"):
        config_address(ecams, 0x4000)
    with pytest.raises(ConflictError, match="0x1"):
        config_address([], 0x0100)


@pytest.mark.parametrize(("flags", "remaps"), [(0, False), (1, True), (2, False), (3, True)])
def test_whether_interrupts_can_be_remapped(flags: int, remaps: bool) -> None:
    table = bytearray(dmar(0xFED90000))
    table[37] = flags
    assert firmware.remaps_interrupts(bytes(table)) == remaps
    assert not firmware.remaps_interrupts(bytes(table[:36]))


@pytest.mark.parametrize(("text", "rid"), [("01:00.0", 0x100), ("0000:01:10.1", 0x181), ("FF:1F.7", 0xFFFF)])
def test_addresses(text: str, rid: int) -> None:
    assert parse_address(text) == rid


@pytest.mark.parametrize("text", ["", "1:0.0", "01:20.0", "01:00.8", "0001:01:00.0", "01:00.0 "])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadRequestError, match="not a PCI address"):
        parse_address(text)


def test_bars_keep_their_kind() -> None:
    text = (
        "0x00000000fe000000 0x00000000fe01ffff 0x0000000000040200\n"
        "0x000000000000c000 0x000000000000c01f 0x0000000000040101\n"
        "0x0000000800000000 0x0000000800003fff 0x000000000014220c\n" + 4 * "0x0 0x0 0x0\n"
    )
    bars = parse_resources(text)
    assert bars[0] == Bar(0xFE000000, 0x20000, 0)
    assert bars[1].size == 0
    assert bars[2] == Bar(0x800000000, 0x4000, 0xC)
    assert len(bars) == 6


def ats(enabled: bool) -> bytes:
    return struct.pack("<IHH", 0x0001000F, 0, 0x8000 if enabled else 0)


def pasid(enabled: bool) -> bytes:
    return struct.pack("<IHH", 0x0001001B, 0, 1 if enabled else 0)


def pri(enabled: bool) -> bytes:
    return struct.pack("<IHH", 0x00010013, 1 if enabled else 0, 0)


@pytest.mark.parametrize(("make", "name"), [(ats, "ATS"), (pasid, "PASID"), (pri, "page requests")])
def test_what_an_iommu_would_have_to_remember_is_refused_only_when_it_is_on(make, name: str) -> None:  # type: ignore[no-untyped-def]
    check_capabilities(IGB, config(extended=make(False)))
    with pytest.raises(ConflictError, match=f"{name} turned on"):
        check_capabilities(IGB, config(extended=make(True)))


@pytest.mark.parametrize(
    ("can", "is_on", "wanted"), [(0x1F, 0, 0x1D), (0x1F, 0x2, 0x1F), (0x5D, 0x1D, None), (0x05, 0x01, 0x05)]
)
def test_a_port_is_to_send_all_it_can_to_the_iommu(can: int, is_on: int, wanted: int | None) -> None:
    port = config(extended=struct.pack("<IHH", 0x0001000D, can, is_on))
    assert acs_wanted(port) == ([] if wanted is None else [(0x106, wanted)])
    assert acs_wanted(config()) == []


def test_a_device_without_msix_is_refused() -> None:
    check_capabilities(IGB, config())
    with pytest.raises(ConflictError, match="no MSI-X"):
        check_capabilities(IGB, config(msix=False))
    with pytest.raises(ConflictError, match="no MSI-X"):
        check_capabilities(IGB, bytes(64))


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    devices = tmp_path / "bus/pci/devices"
    for name, kind in ((IGB, "0x020000"), ("0000:00:10.0", "0x060400")):
        folder = devices / name
        folder.mkdir(parents=True)
        (folder / "class").write_text(kind)
        (folder / "config").write_bytes(config())
    group = tmp_path / "group/devices"
    group.mkdir(parents=True)
    for name in (IGB, "0000:00:10.0"):
        (group / name).symlink_to(devices / name)
    (devices / IGB / "iommu_group").symlink_to(tmp_path / "group")
    return tmp_path


def test_the_port_above_may_share_the_group_and_others_may_not(sysfs: Path) -> None:
    functions = Functions(sysfs)
    functions.check(IGB)
    other = sysfs / "bus/pci/devices/0000:01:00.1"
    other.mkdir()
    (other / "class").write_text("0x020000")
    (sysfs / "group/devices" / other.name).symlink_to(other)
    with pytest.raises(ConflictError, match=r"shares its IOMMU group with 0000:01:00\.1"):
        functions.check(IGB)


def test_a_device_behind_no_iommu_or_in_use_is_refused(sysfs: Path) -> None:
    functions = Functions(sysfs)
    folder = sysfs / "bus/pci/devices" / IGB
    (sysfs / "drivers/igb").mkdir(parents=True)
    (folder / "driver").symlink_to(sysfs / "drivers/igb")
    functions.check(IGB)
    (folder / "net/eth1").mkdir(parents=True)
    (folder / "net/eth1/flags").write_text("0x1003")
    with pytest.raises(ConflictError, match="in use by igb"):
        functions.check(IGB)
    (folder / "iommu_group").unlink()
    with pytest.raises(ConflictError, match="behind no IOMMU"):
        functions.check(IGB)


@pytest.mark.parametrize("other", ["0001", "10000", "f0100"])
def test_a_function_of_another_segment_is_another_one(sysfs: Path, other: str) -> None:
    """Also when it has the same numbers: a driver (VMD) gives segments numbers that PCI has not."""
    (sysfs / "bus/pci/devices" / IGB).rename(sysfs / f"bus/pci/devices/{other}:01:00.0")
    assert Functions(sysfs).find(0x100) is None


def test_functions_are_found_in_segment_0_and_in_that_of_one_that_was_handed(sysfs: Path) -> None:
    functions = Functions(sysfs)
    assert functions.find(0x100) == IGB
    (sysfs / "bus/pci/devices" / IGB).rename(sysfs / "bus/pci/devices/0100:01:00.0")
    assert functions.find(0x100) == "0100:01:00.0"
    assert functions.driver("0100:01:00.0") == ""
    with pytest.raises(BadRequestError, match=r"no PCI device 05:00\.0"):
        functions.need(0x500)
    assert DRIVER == "multiroot-vfio"


def test_the_state_survives_its_message() -> None:
    bars = tuple(Bar(index << 20, 1 << 14, 4) for index in range(6))
    function = Function(0x181, 0xB0181000, True, 0x8086, 0x10CA, 0x8086, 0xA03C, 0x02000001, bars)
    state = DeviceState(
        1, function, Extent(2 << 20, 16 << 20), 0x100400000, 7, Translation(1, 16, 2, 3, 4, 5, 6)
    )
    assert state_from_proto(state_to_proto(state)) == state
    with pytest.raises(BadRequestError, match="0 BARs"):
        state_from_proto(device_pb2.DeviceState(version=1))
