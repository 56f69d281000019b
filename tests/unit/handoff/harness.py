# SPDX-License-Identifier: GPL-2.0-or-later
"""Two roots in one process: two arenas over one file, two managers, gRPC over unix sockets, fake QEMUs."""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from multiroot.arena.arena import Arena
from multiroot.handoff.giver import hand_over
from multiroot.handoff.handoff_service import HandoffService
from multiroot.handoff.taker import Taker
from multiroot.handoff.target import Lost, Target
from multiroot.handoff.terms import PATIENT, Terms
from multiroot.phases import Phases
from multiroot.processes import ProcessId
from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import coordinator_pb2, handoff_pb2_grpc, vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm.definition import VmDefinition
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.qemu.command import Qemu
from multiroot.vm.qemu.qmp import Qmp
from multiroot.vm.qemu.vmm import QemuFactory, QemuVmm
from multiroot.vm.ticks import Continuity, continuity
from multiroot.vm.vm_service import VmService
from multiroot.vm.vmm import VmmFactory

FAKE = Path(__file__).parents[1] / "vm" / "fake_qemu.py"
RAM = struct.Struct("<QQQ")  # as in fake_qemu.py
SMALL = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny", cpu="base,lm=on").checked()


@dataclass
class Root:
    """One root under test."""

    host: Host
    manager: VmManager
    taker: Taker
    server: grpc.aio.Server
    channel: grpc.aio.Channel
    program: Path
    address: str
    peers: dict[int, grpc.aio.Channel] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)  # roots that have ended, by the ledger

    @property
    def number(self) -> int:
        return self.host.root

    def faults(self, words: str) -> None:
        """What goes wrong with QEMUs that are started here from now on."""
        self.program.write_text(f"#!/bin/sh\nFAKE_QEMU='{words}' exec {sys.executable} -S {FAKE} \"$@\"\n")
        self.program.chmod(0o755)

    async def serve(self) -> None:
        """Answer from now on."""
        self.server.add_insecure_port(self.address)
        await self.server.start()

    async def close(self) -> None:
        """End all that runs in it."""
        for vm in self.manager.all():
            await vm.discard()
        await self.taker.close()
        await self.channel.close()
        await self.server.stop(None)
        self.host.arena.close()

    async def ticks(self, at_least: int = 0) -> vm_pb2.Ticks:
        stub = vm_pb2_grpc.VmServiceStub(self.channel)
        return await stub.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=at_least))


def make_root(number: int, folder: Path, vmm: VmmFactory | None = None, **more: Any) -> Root:
    """A root on the ground that conftest.py lays, with fake QEMUs unless told otherwise; silent yet. `more`
    is what its host has besides.
    """
    ended: set[int] = set()
    peers: dict[int, grpc.aio.Channel] = {}
    arena = Arena(folder / "arena", number, ended.__contains__)
    program = folder / f"qemu{number}"
    run_dir = folder / f"vms{number}"
    host = Host(
        number,
        arena,
        time.monotonic_ns,
        run_dir,
        vmm or QemuFactory(Qemu(program, "tcg")),
        guests=folder / "guests",
        **more,
    )
    manager = VmManager(host)
    taker = Taker(manager, f"root {number}", "127.0.0.1")
    server = make_server(lambda name: True, lambda name: pytest.fail("no relaying here"))
    handoff_pb2_grpc.add_HandoffServiceServicer_to_server(HandoffService(taker), server)
    service = VmService(manager, lambda name: peers[int(name)])
    vm_pb2_grpc.add_VmServiceServicer_to_server(service, server)
    address = f"unix:{folder}/root{number}"
    channel = grpc.aio.insecure_channel(address)
    root = Root(host, manager, taker, server, channel, program, address, peers, ended)
    root.faults("")
    return root


async def start_vm(root: Root) -> Instance:
    vm = await root.manager.run(SMALL)
    await root.ticks(20)
    return vm


def target(taker: Root, lost: Lost | None = None) -> Target:
    return Target(taker.number, taker.channel, lost=lost)


async def hand(
    giver: Root, taker: Root, lost: Lost | None = None, terms: Terms = PATIENT, name: str = "vm0"
) -> coordinator_pb2.HandoffResult:
    """Nobody is in a hurry here, unless a test says so: this computer may be slow."""
    phases = Phases(f"root {giver.number}", time.monotonic_ns)
    return await hand_over(giver.manager, name, target(taker, lost), phases, terms)


async def assert_runs_only_in(root: Root, other: Root) -> None:
    """The guest goes on in `root`, no QEMU of it is left in `other`, and never did two run at once."""
    vm = root.manager.running("vm0")
    assert vm.word.read() == vm.owner
    assert vm.owner.root == root.number
    before = len((await root.ticks()).counter)
    await root.ticks(before + 20)
    await no_qemu(other)
    assert clashes(vm) == 0


def qmp_of(vm: Instance) -> Qmp:
    """The connection to the fake QEMU that runs it."""
    assert isinstance(vm.vmm, QemuVmm)
    return vm.vmm.qmp


def process_of(vm: Instance) -> ProcessId:
    """The fake QEMU that runs it."""
    assert vm.vmm.process
    return vm.vmm.process


async def ended(vm: Instance) -> None:
    """Wait until the VM's end has been noticed, which is a task of its own."""
    while vm.active:
        await asyncio.sleep(0.01)


async def no_qemu(root: Root) -> None:
    """Wait until no process runs a VM for this root, not even unknown to its manager."""
    for vm in root.manager.all():
        if vm.vmm.process:
            await ended(vm)
            await vm.vmm.wait_end()
    while any(str(root.host.run_dir) in line for line in command_lines()):
        await asyncio.sleep(0.01)


def command_lines() -> list[str]:
    """Of all processes; a console keeper's holds its VM's folder and ends with its QEMU."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def clashes(vm: Instance) -> int:
    """How often the guest in this memory noticed another copy of itself."""
    with vm.host.arena.path.open("rb") as file:
        file.seek(vm.entry.record.offset)
        return int(RAM.unpack(file.read(RAM.size))[2])


async def seen_across(*roots: Root) -> Continuity:
    """The guest's ticks through the consoles of successive owners, as one."""
    stretches = [ticks_from_proto(await root.ticks()) for root in roots]
    joined = stretches[0]
    for stretch in stretches[1:]:
        joined = joined.then(stretch)
    seen = continuity(joined.ticks)
    assert seen is not None
    return seen
