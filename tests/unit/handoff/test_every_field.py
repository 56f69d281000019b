# SPDX-License-Identifier: GPL-2.0-or-later
"""Every field of a VM's definition means the same in the root that takes the VM, or that root refuses it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from kexec.x86.bzimage import BzImage
from vm.test_vm_kept_files import name_of, send

from multiroot.errors import MultirootError
from multiroot.units import GIB, MIB
from multiroot.vm import disk_servers, iscsi
from multiroot.vm.definition import Card, VmDefinition
from multiroot.vm.disk import Disk
from multiroot.vm.pmem import Pmem
from multiroot.vm.served import Export

from .harness import Root, hand, make_root

MAC = "52:54:00:00:00:0"
TARGET = Disk("iscsi://192.0.2.1:3260/iqn.2026-11.org.example:d/1")
PMEM = Disk("pmem:0x1c0000000")
BASE = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", cpu="base,lm=on", cards=(Card(f"{MAC}1"),))
# What only a QEMU has that waits for a device state.
WAITS = re.compile(
    r"(-chardev\0[^\0]*id=monitor,[^\0]*\0-object\0monitor-qmp,id=monitor-control[^\0]*\0-S\0-incoming\0defer\0)$"
)


@dataclass(frozen=True)
class Case:
    """Two VMs that differ in one field: what both of them are, and how one is changed. `refused` are the
    taker's words, which name the field, if it is that.
    """

    change: Mapping[str, Any]
    both: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


# Whoever adds a field to a VM's definition adds a case here.
CASES = {
    "name": Case({"name": "vm1"}),
    "ram_bytes": Case({"ram_bytes": 34 * MIB}),
    "cpus": Case({"cpus": 2}),
    "cpu": Case({"cpu": "base,lm=on,sse2=on"}),
    "machine": Case({"machine": "q35,hpet=on"}),
    "firmware": Case({"firmware": "seabios"}),
    "guest": Case({"guest": "other"}),
    "kernel": Case({"kernel": "FILE 1"}, {"kernel": "FILE 0"}),
    "initrd": Case({"initrd": "FILE 1"}, {"kernel": "FILE 0", "initrd": "FILE 0"}),
    "append": Case({"append": "quiet"}),
    "cards.mac": Case({"cards": (Card(f"{MAC}2"),)}),
    "cards.address": Case({"cards": (Card(f"{MAC}1", "10.77.1.9/16"),)}),
    "cards.queues": Case({"cards": (Card(f"{MAC}1", queues=2),)}, {"cpus": 2}),
    "disks.source": Case({"disks": (replace(PMEM, source="pmem:0x1d0000000"),)}, {"disks": (PMEM,)}),
    "disks.bus": Case({"disks": (replace(PMEM, bus="virtio-scsi"),)}, {"disks": (PMEM,)}),
    "disks.read_only": Case({"disks": (replace(PMEM, read_only=True),)}, {"disks": (PMEM,)}),
    "disks.format": Case({"disks": (replace(PMEM, format="qcow2"),)}, {"disks": (PMEM,)}),
    "disks.initiator": Case(
        {"disks": (replace(TARGET, initiator="iqn.2026-11.org.example:vm"),)}, {"disks": (TARGET,)}
    ),
    "disks.login": Case(
        {"disks": (replace(TARGET, login="FILE 1"),)}, {"disks": (replace(TARGET, login="FILE 0"),)}
    ),
    "boot_order": Case(
        {"boot_order": ("disk1", "disk0")},
        {"firmware": "seabios", "disks": (PMEM, replace(PMEM, source="pmem:0x1d0000000"))},
    ),
    # Where there are devices, tests/lab/test_passthrough.py hands one over.
    "functions": Case({"functions": ("01:00.0",)}, refused="owns a device, and this root has none to give"),
    "watchdog": Case({"watchdog": "reset"}),
    "user_data": Case({"user_data": "#!/bin/true\n"}),
}


def all_fields(record: type[Any] = VmDefinition) -> Iterator[str]:
    """Those of cards and disks, too, each by one name."""
    for each in fields(record):
        element = each.metadata.get("element")
        yield from (f"{each.name}.{inner}" for inner in all_fields(element)) if element else [each.name]


class Wires:
    """A network of which a VMM sees its descriptors alone."""

    name = "tap0"

    def __init__(self, queues: int = 1) -> None:
        self.fds = tuple(os.open(os.devnull, os.O_RDWR) for _ in range(queues))

    async def add_tap(self, vm: str, queues: int = 1) -> Wires:
        return Wires(queues)

    async def bring_up(self, tap: str) -> None:
        """There is nothing to be brought up."""

    def await_lease(self, tap: str, hear: object) -> None:
        """Nobody gives any."""

    def inside(self) -> nullcontext[None]:
        return nullcontext()

    def arriving(self, cards: object) -> Wires:
        return Wires(0)

    def late_frames(self, cards: object, root: int, vmm: int) -> Wires:
        return Wires(0)

    def tell(self) -> None:
        """Nobody hears it."""

    def listen(self) -> None:
        """No frame comes."""

    def pass_on(self) -> int:
        return 0

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def find(disk: Disk) -> Pmem | None:
    return (
        Pmem(disk.address, GIB, read_only=False, node=Path(f"/dev/{disk.address:x}"))
        if disk.address
        else None
    )


@pytest.fixture
async def roots(ground: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Root, Root]]:
    """Two that have a network, and disks of which nobody asks what is in them."""
    (ground / "guests/other").symlink_to("tiny")
    monkeypatch.setattr("multiroot.vm.host.check_content", lambda *_: None)
    monkeypatch.setattr("multiroot.vm.instance.open_vhost", lambda _: ())
    monkeypatch.setattr(iscsi, "look", lambda *_: Export(MIB, read_only=False, head=b""))
    monkeypatch.setattr(iscsi, "reach", lambda *_: None)
    monkeypatch.setattr(disk_servers, "missing", lambda *_: set())
    found = tuple(
        make_root(number, ground, network=Wires(0), find_disk=find, look_at_disk=lambda *_: None)
        for number in (1, 2)
    )
    for root in found:
        await root.serve()
    yield found[0], found[1]
    for root in found:
        await root.close()


def with_files(root: Root, definition: VmDefinition) -> VmDefinition:
    """The files that a case only numbers."""

    def sent(file: str, make: Callable[[int], bytes]) -> str:
        if not file.startswith("FILE "):
            return file
        content = make(int(file.removeprefix("FILE ")))
        return name_of(content) if root.host.files.has(name_of(content)) else send(root.host.files, content)

    def kernel(number: int) -> bytes:
        return BzImage(init_size=8 * MIB, pref_address=(2 + 2 * number) * MIB).build()

    def login(number: int) -> bytes:
        return b"joe:password %d" % number

    return replace(
        definition,
        kernel=sent(definition.kernel, kernel),
        initrd=sent(definition.initrd, kernel),
        disks=tuple(replace(disk, login=sent(disk.login, login)) for disk in definition.disks),
    )


def seen(root: Root, name: str) -> tuple[str, dict[str, bytes]]:
    """What a VM's QEMU was started with: its words, as they would be in any root, and its files."""
    vm = root.manager.live(name)
    assert vm.vmm.process
    words = Path(f"/proc/{vm.vmm.process.pid}/cmdline").read_text()
    folder = str(vm.folder.path)
    files = {word: Path(folder + word).read_bytes() for word in re.findall(rf"{folder}(/[a-z0-9.]+)", words)}
    words = WAITS.sub("", words[words.index("-name\0") :])
    return re.sub(r"\b(fds?)=[0-9:]+", r"\1=", words.replace(folder, "")), files


async def there(roots: tuple[Root, Root], definition: VmDefinition) -> tuple[str, dict[str, bytes]]:
    """The same, which is equal on both sides of a handoff."""
    giver, taker = roots
    vm = await giver.manager.run(definition)
    before = seen(giver, vm.name)
    await hand(giver, taker, name=vm.name)
    assert taker.manager.live(vm.name).definition == vm.definition
    after = seen(taker, vm.name)
    assert after == before
    await taker.manager.stop(vm.name)
    return after


@pytest.mark.parametrize("name", [*all_fields()])
async def test_a_field_means_the_same_in_the_taker_or_is_refused(roots: tuple[Root, Root], name: str) -> None:
    assert name in CASES, "say here how a VMM that takes the VM shows it, or by what words it is refused"
    case = CASES[name]
    plain = replace(BASE, **case.both)
    plain, changed = (with_files(roots[0], each).checked() for each in (plain, replace(plain, **case.change)))
    assert plain != changed
    if case.refused:
        with pytest.raises(MultirootError, match=case.refused):
            roots[1].host.check(changed)
        return
    assert await there(roots, plain) != await there(roots, changed)


def test_a_field_that_is_there_no_more_has_no_case() -> None:
    assert set(CASES) == set(all_fields())
