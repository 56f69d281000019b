# SPDX-License-Identifier: GPL-2.0-or-later
"""What UEFI needs: its code, and its variables, which outlive the VM's process where somebody keeps them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError
from multiroot.units import MIB
from multiroot.vm import firmware
from multiroot.vm.definition import OVMF, VmDefinition
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager

UEFI = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", firmware=OVMF)
FRESH = b"fresh"


class Store:
    """Keeps variables in this process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def load(self, vm: str) -> bytes | None:
        return self.kept.get(vm)

    def store(self, vm: str, content: bytes) -> None:
        self.kept[vm] = content


@pytest.fixture
def ovmf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root that has the firmware; its code."""
    for name, content in (("CODE", b"code"), ("TEMPLATE", FRESH)):
        path = tmp_path / name
        path.write_bytes(content)
        monkeypatch.setattr(firmware, name, path)
    return firmware.CODE


async def test_variables_are_there_again_when_a_vm_is_run_again(host: Host, ovmf: Path) -> None:
    store = Store()
    manager = VmManager(replace(host, variables=store))
    vm = await manager.run(UEFI)
    file = firmware.variables(vm.folder.path)
    assert file.read_bytes() == FRESH
    assert vm.vmm.process
    argv = Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_bytes().decode().split("\0")
    flash = [json.loads(value) for word, value in pairwise(argv) if word == "-blockdev"]
    assert [each["filename"] for each in flash] == [str(ovmf), str(file)]
    assert [each.get("read-only", False) for each in flash] == [True, False]
    file.write_bytes(b"boot1")
    await manager.stop("vm0")
    assert store.kept == {"vm0": b"boot1"}
    vm = await manager.run(UEFI)
    assert firmware.variables(vm.folder.path).read_bytes() == b"boot1"
    await manager.stop("vm0")
    # Of another version of the firmware.
    store.kept["vm0"] = b"longer than that"
    vm = await manager.run(UEFI)
    assert firmware.variables(vm.folder.path).read_bytes() == FRESH
    await manager.stop("vm0")


async def test_what_this_root_did_not_write_is_not_stored(host: Host, ovmf: Path) -> None:
    store = Store()
    manager = VmManager(replace(host, variables=store))
    vm = await manager.run(UEFI)
    await manager.get("vm0").vmm.end()
    await vm.ended()
    assert store.kept == {}


async def test_other_firmware_has_no_variables(host: Host) -> None:
    store = Store()
    manager = VmManager(replace(host, variables=store))
    vm = await manager.run(replace(UEFI, firmware="seabios"))
    assert not firmware.variables(vm.folder.path).exists()
    await manager.stop("vm0")
    assert store.kept == {}


async def test_a_root_without_the_firmware_refuses(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firmware, "CODE", tmp_path / "none")
    with pytest.raises(BadRequestError, match=r"this root has no UEFI firmware: no file .*none"):
        await VmManager(host).run(UEFI)
    assert host.arena.entries() == []
