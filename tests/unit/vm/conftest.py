# SPDX-License-Identifier: GPL-2.0-or-later
"""A root whose QEMU is fake_qemu.py and whose arena is a file."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from arena.conftest import blank_file
from vm.cli_agent import Run, serving

from multiroot.arena.arena import Arena, format_arena
from multiroot.units import MIB
from multiroot.vm.definition import VmDefinition
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance
from multiroot.vm.manager import VmManager
from multiroot.vm.qemu.command import Qemu
from multiroot.vm.qemu.qmp import Qmp
from multiroot.vm.qemu.vmm import QemuFactory, QemuVmm
from multiroot.vm.vmm import VmmGoneError

FAKE = Path(__file__).with_name("fake_qemu.py")
SMALL = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", cpu="base,lm=on").checked()
SetFaults = Callable[[str], Path]


def qmp_of(vm: Instance) -> Qmp:
    assert isinstance(vm.vmm, QemuVmm)
    return vm.vmm.qmp


async def power_off(vm: Instance) -> None:
    """By its button; a guest may do so before its VMM has answered."""
    with suppress(VmmGoneError):
        await vm.vmm.press_power()
    await vm.ended()


@pytest.fixture
def arena_size() -> int:
    return 128 * MIB


@pytest.fixture
def arena_path(tmp_path: Path, arena_size: int) -> Path:
    path = blank_file(tmp_path / "arena", arena_size)
    format_arena(path)
    return path


@pytest.fixture
def guests(tmp_path: Path) -> Path:
    folder = tmp_path / "guests" / "tiny"
    folder.mkdir(parents=True)
    (folder / "vmlinuz").touch()
    (folder / "initrd").touch()
    return folder.parent


@pytest.fixture
def set_faults(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the program that stands in for QEMU; call again to change its faults."""

    def write(faults: str) -> Path:
        program = tmp_path / "qemu"
        program.write_text(f"#!/bin/sh\nFAKE_QEMU='{faults}' exec {sys.executable} -S {FAKE} \"$@\"\n")
        program.chmod(0o755)
        return program

    return write


@pytest.fixture
def host(arena_path: Path, guests: Path, tmp_path: Path, set_faults: Callable[[str], Path]) -> Host:
    return Host(
        root=1,
        arena=Arena(arena_path, 1),
        clock=time.monotonic_ns,
        run_dir=tmp_path / "vms",
        vmm=QemuFactory(Qemu(set_faults(""), "tcg")),
        guests=guests,
    )


@pytest.fixture
async def manager(host: Host) -> AsyncIterator[VmManager]:
    made = VmManager(host)
    yield made
    for vm in made.all():
        await vm.discard()


@pytest.fixture
async def multiroot(manager: VmManager, guests: Path, tmp_path: Path) -> AsyncIterator[Run]:
    """Runs a command, of which the guest image is "tiny" untold."""
    (guests / "ticker").symlink_to("tiny")
    async with serving(manager, tmp_path) as run:
        yield run
