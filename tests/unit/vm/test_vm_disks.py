# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of VMs: what they are in this root, who has them, and what QEMU is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from multiroot.arena.arena import Arena
from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.units import GIB, MIB
from multiroot.vm import claims, pmem
from multiroot.vm.definition import DIRECT, OVMF, SEABIOS, VmDefinition
from multiroot.vm.disk import Disk, parse_disks
from multiroot.vm.disk_content import Content
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager
from multiroot.vm.pmem import Pmem
from multiroot.vm.qemu.command import machine
from multiroot.vm.qemu.disks import disk_words, order_words

AT = 0x1C0000000
ZEROS = Content(GIB, read_only=False, head=bytes(4096))
DISK = Disk(f"pmem:{AT:#x}")
SMALL = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", disks=(DISK,)).checked()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """/sys/block and /dev of a root: an image, a disk, a sector-mapped namespace, a disk of another kind."""
    sys_block, dev = tmp_path / "block", tmp_path / "dev"
    dev.mkdir()
    for name, resource, size, read_only in (
        ("pmem0", f"{0x180000000:#x}\n", 4 * GIB, "1\n"),
        ("pmem2", f"{AT:#x}\n", 2 * GIB, "0\n"),
        ("pmem3s", None, GIB, "0\n"),
        ("vda", None, GIB, "0\n"),
    ):
        folder = sys_block / name
        (folder / "device").mkdir(parents=True)
        (dev / name).touch()
        if resource:
            (folder / "device/resource").write_text(resource)
        (folder / "size").write_text(f"{size // 512}\n")
        (folder / "ro").write_text(read_only)
    return sys_block, dev


def test_persistent_memory_by_its_address(folders: tuple[Path, Path]) -> None:
    sys_block, dev = folders
    assert pmem.devices(sys_block, dev) == [
        Pmem(0x180000000, 4 * GIB, read_only=True, node=dev / "pmem0"),
        Pmem(AT, 2 * GIB, read_only=False, node=dev / "pmem2"),
    ]
    assert pmem.find(AT, writable=True, sys_block=sys_block, dev=dev).node == dev / "pmem2"
    assert pmem.find(0x180000000, writable=False, sys_block=sys_block, dev=dev).read_only


def test_what_cannot_be_a_disk(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sys_block, dev = folders
    with pytest.raises(BadRequestError, match="no persistent memory at 0x1000"):
        pmem.find(0x1000, writable=True, sys_block=sys_block, dev=dev)
    with pytest.raises(BadRequestError, match="pmem0 can't be written to"):
        pmem.find(0x180000000, writable=True, sys_block=sys_block, dev=dev)
    monkeypatch.setattr(pmem, "unusable", lambda node: "this root has it mounted" * (node == dev / "pmem0"))
    with pytest.raises(ConflictError, match="pmem0 can't be a VM's disk: this root has it mounted"):
        pmem.find(0x180000000, writable=True, sys_block=sys_block, dev=dev)
    monkeypatch.undo()
    (dev / "pmem2").unlink()
    with pytest.raises(ConflictError, match="pmem2 can't be a VM's disk: No such file"):
        pmem.find(AT, writable=True, sys_block=sys_block, dev=dev)


def test_a_disk_is_one_vms(arena_path: Path) -> None:
    """Also where another root asks; and as long as that VM is in the arena."""
    one, two = Arena(arena_path, 1), Arena(arena_path, 2)
    one.allocate("a", 32 * MIB, 7)
    claims.claim(one, "a", (DISK,))
    two.allocate("b", 32 * MIB, 8)
    other = Disk("pmem:0x200000000")
    with pytest.raises(ConflictError, match="the disk pmem:0x1c0000000 is VM a's, in root 1"):
        claims.claim(two, "b", (other, DISK))
    assert [entry.name for entry in one.entries()] == ["a", f".disk-{AT:x}", "b"]
    # Root 2 gets the VM, and ends it.
    owner = two.take("a", Owner(1, 1), 2)
    two.free("a", owner)
    claims.release(two, "a")
    claims.claim(two, "b", (other, DISK))


def test_a_claim_of_a_vm_that_is_no_more_counts_for_nothing(arena_path: Path) -> None:
    one = Arena(arena_path, 1)
    entry = one.allocate("a", 32 * MIB, 7)
    claims.claim(one, "a", (DISK,))
    one.free("a", entry.owner)
    one.allocate("b", 32 * MIB, 7)
    claims.claim(one, "b", (DISK,))
    claims.release(one, "a")
    assert [each.name for each in one.entries()] == ["b", f".disk-{AT:x}"]


def test_a_claim_of_a_vms_earlier_life_is_not_in_its_own_way(arena_path: Path) -> None:
    """An agent that ended after it had given the memory back, and before the claims."""
    one = Arena(arena_path, 1)
    entry = one.allocate("a", 32 * MIB, 7)
    claims.claim(one, "a", (DISK,))
    one.free("a", entry.owner)
    one.allocate("a", 32 * MIB, 7)
    claims.claim(one, "a", (DISK,))
    assert [each.name for each in one.entries()] == ["a", f".disk-{AT:x}"]


async def test_a_vm_has_its_disk_until_it_is_stopped(host: Host, tmp_path: Path) -> None:
    asked: list[Disk] = []

    def find(disk: Disk) -> Pmem:
        asked.append(disk)
        assert disk.address
        return Pmem(disk.address, GIB, read_only=False, node=tmp_path / "pmem5")

    manager = VmManager(replace(host, find_disk=find, look_at_disk=lambda *_: ZEROS))
    vm = await manager.run(SMALL)
    assert vm.vmm.process
    argv = Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_bytes().decode().split("\0")
    assert json.loads(argv[argv.index("-blockdev") + 1])["filename"] == str(tmp_path / "pmem5")
    with pytest.raises(ConflictError, match="is VM vm0's, in root 1"):
        await manager.run(replace(SMALL, name="vm1"))
    assert [entry.name for entry in host.arena.vms()] == ["vm0"]
    await manager.stop("vm0")
    assert host.arena.entries() == []
    await manager.run(replace(SMALL, name="vm1"))
    await manager.stop("vm1")
    assert set(asked) == {DISK}


async def test_a_vm_whose_disk_is_not_here_changes_nothing(
    host: Host, set_faults: Callable[[str], Path]
) -> None:
    with pytest.raises(BadRequestError, match="this root has no persistent memory at"):
        await VmManager(host).run(replace(SMALL, disks=(Disk("pmem:0x7"),)))
    assert host.arena.entries() == []
    set_faults("refuse:migrate-set-capabilities")
    found = Pmem(AT, GIB, read_only=False, node=Path(os.devnull))
    with pytest.raises(CommandError, match="not to be had"):
        await VmManager(replace(host, find_disk=lambda _: found, look_at_disk=lambda *_: ZEROS)).run(SMALL)
    assert host.arena.entries() == []


def test_what_qemu_is_told_of_a_disk() -> None:
    node = Path("/dev/pmem2")
    backend, front = disk_words(0, DISK, node, started_by=SEABIOS)[1::2]
    assert json.loads(backend) == {
        "driver": "host_device",
        "node-name": "disk0",
        "filename": "/dev/pmem2",
        "cache": {"direct": True},
        "read-only": False,
        "discard": "unmap",
    }
    assert front.startswith("virtio-blk-pci,disable-modern=on,disable-legacy=off,")
    assert {"drive=disk0", "bootindex=0", "serial=disk0", "addr=0x10"} < set(front.split(","))
    assert "bootindex" not in disk_words(1, DISK, node, started_by=SEABIOS, order=("disk0",))[-1]
    cd = disk_words(1, Disk(DISK.source, "cd").checked(), node, started_by=OVMF)[1::2]
    assert json.loads(cd[0])["read-only"]
    assert cd[2] == "scsi-cd,bus=scsi1.0,device_id=disk1,drive=disk1,serial=disk1,bootindex=1"
    # A kernel that is given directly has the first place itself.
    other = disk_words(2, Disk(DISK.source, "virtio-scsi"), node, started_by=DIRECT)
    assert other[-1] == "scsi-hd,bus=scsi2.0,device_id=disk2,drive=disk2,serial=disk2"


def test_a_firmware_tries_the_disks_of_an_order_and_no_others() -> None:
    node = Path("/dev/pmem2")
    order = ("disk2", "disk0")
    fronts = [disk_words(each, DISK, node, started_by=SEABIOS, order=order)[-1] for each in range(3)]
    assert ["bootindex" in front for front in fronts] == [True, False, True]
    assert [front[-1] for front in (fronts[2], fronts[0])] == ["0", "1"]
    assert order_words(("disk2",), started_by=SEABIOS) == ["-boot", "strict=on"]
    assert order_words((), started_by=SEABIOS) == order_words(("disk2",), started_by=OVMF) == []


def test_what_qemu_is_told_of_a_servers_disk() -> None:
    (disk,) = parse_disks(["nbd:10.0.2.2:10899/d"])
    backend = json.loads(disk_words(0, disk.checked(), None, started_by=DIRECT)[1])
    assert backend["server"] == {"type": "inet", "host": "10.0.2.2", "port": "10899", "keep-alive": True}
    assert (backend["driver"], backend["export"]) == ("nbd", "d")
    assert 10 * 365 * 86400 < backend["reconnect-delay"] < 1 << 32


def test_no_other_file_is_part_of_a_qcow2() -> None:
    disk = replace(DISK, format="qcow2")
    backend = json.loads(disk_words(0, disk, Path("/dev/pmem2"), started_by=DIRECT)[1])
    assert (backend["driver"], backend["backing"]) == ("qcow2", None)
    assert backend["file"]["filename"] == "/dev/pmem2"


def test_what_starts_the_guest() -> None:
    assert "firmware=qboot.rom" in machine("q35").split(",")
    assert "firmware=bios.bin" in machine("q35", SEABIOS).split(",")
    assert {"pflash0=code", "pflash1=variables"} < set(machine("q35", OVMF).split(","))


def test_disks_as_an_option_has_them() -> None:
    given = ("pmem:0x1", "pmem:0x2,bus=virtio-scsi", "pmem:0x3,ro,bus=cd", "")
    assert parse_disks(given) == (
        Disk("pmem:0x1"),
        Disk("pmem:0x2", "virtio-scsi"),
        Disk("pmem:0x3", "cd", read_only=True),
        Disk(""),
    )
    for wrong in ("pmem:0x1,", "pmem:0x1,rw", "pmem:0x1,size=3"):
        with pytest.raises(BadRequestError, match="not a word about a disk"):
            parse_disks([wrong])
