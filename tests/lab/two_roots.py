# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs inside a lab machine: two agents in one kernel hand a real KVM guest to and fro over the real arena.

python3 -c THIS drive MACHINE: prints one line of JSON. The taker's agent is a child process (role "serve").
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from multiroot.agent.coming_up import of_tasks
from multiroot.arena.arena import Arena
from multiroot.arena.atomics import tsc, tsc_clock
from multiroot.arena.backing import find_device
from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.errors import CommandError, MultirootError
from multiroot.handoff.giver import hand_over
from multiroot.handoff.handoff_service import HandoffService
from multiroot.handoff.taker import Taker
from multiroot.handoff.target import Target
from multiroot.handoff.terms import PATIENT
from multiroot.net import namespace
from multiroot.net.network import RootNetwork
from multiroot.phases import Phases
from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import handoff_pb2_grpc, vm_pb2, vm_pb2_grpc
from multiroot.units import MIB
from multiroot.vm.definition import Card, VmDefinition
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.qemu import memory_map
from multiroot.vm.qemu.vmm import QemuFactory, QemuVmm
from multiroot.vm.ticks import continuity
from multiroot.vm.vm_service import VmService

STAGE_S = 120  # no stage takes so long on any computer; one that does has met a fault
OLD, NEW = 101, 102  # numbers that no real root of the lab has
NAME = "twice"
REPORT_END = "end of the report\n"


class CheckedQemu(QemuVmm):
    """Loads the device state and then, before its agent owns the VM, finds something wrong; `failures` times.

    It refuses a VM when it did not take on the whole memory map that came as hints.
    """

    failures = 0

    async def take_hints(self, hints: bytes) -> None:
        await super().take_hints(hints)
        taken = await self.hints()
        if taken != hints:
            # A refusal of hints is only logged; this is to be seen.
            raise MultirootError(f"the memory map is {taken!r}, not {hints!r}")

    def take(self, switch: Switch, until: Step) -> Outcome:
        if switch.step is Step.BEGUN and CheckedQemu.failures:
            super().take(switch, Step.HEARD)
            CheckedQemu.failures -= 1
            raise CommandError("ordered by the test")
        return super().take(switch, until)


class Agent:
    """As much of an agent as VMs need."""

    def __init__(self, number: int, khz: int) -> None:
        self.clock = tsc_clock(khz)
        self.network = RootNetwork(1)
        arena = Arena(find_device().node, number)
        vmm = QemuFactory(kind=CheckedQemu)
        self.manager = VmManager(
            Host(number, arena, self.clock, Path(f"/tmp/vms{number}"), vmm, self.network)
        )
        self.taker = Taker(self.manager, f"root {number}", "127.0.0.1")
        self.server = make_server(lambda name: True, lambda name: grpc.aio.insecure_channel(name))
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(HandoffService(self.taker), self.server)
        vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(self.manager), self.server)
        self.server.add_insecure_port(f"unix:/tmp/agent{number}")
        self.phases = Phases(f"root {number}", self.clock)

    async def start(self) -> None:
        await self.network.start()
        await self.server.start()

    async def report(self) -> str:
        """What the VM does here and what it has said."""
        said = [f"root {self.manager.host.root} waits for:", *of_tasks(asyncio.get_running_loop())]
        vm = self.manager.find(NAME)
        if vm is None:
            return "\n".join([*said, "it has no VM"])
        said.append(f"its VM is {vm.state}")
        for path in (vm.folder.console_record, vm.folder.vmm_log):
            said.append(path.read_bytes()[-1000:].decode(errors="replace") if path.exists() else f"no {path}")
        if isinstance(vm.vmm, QemuVmm):
            for line in ("info status", "info registers -a", "info lapic", "info pic"):
                try:
                    said.append(await vm.vmm.qmp.human(line))
                except MultirootError as error:
                    said.append(f"{line}: {error.message}")
        return "\n".join(said)


def processes() -> str:
    """All that have a command line, and how they are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")[:200].decode(errors="replace")
            state = (folder / "stat").read_text().rpartition(")")[2][:2]
        except OSError:
            continue  # it has just ended
        if line:
            found.append(f"{folder.name}{state} {line}")
    return "\n".join(found)


def kernel_messages() -> str:
    """The last ones; a CPU that does not come back is told there."""
    said = subprocess.run(["dmesg"], capture_output=True, check=False, timeout=STAGE_S).stdout
    return said[-3000:].decode(errors="replace")


def channel_to(number: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:/tmp/agent{number}")


async def ticks_of(number: int, at_least: int) -> vm_pb2.Ticks:
    async with channel_to(number) as channel:
        stub = vm_pb2_grpc.VmServiceStub(channel)
        return await stub.GetTicks(vm_pb2.GetTicksRequest(name=NAME, wait_count=at_least))


def measure_khz() -> int:
    tsc_before, before = tsc(), time.monotonic_ns()
    time.sleep(0.5)
    return round((tsc() - tsc_before) * 1e6 / (time.monotonic_ns() - before))


async def serve(khz: int, failures: int) -> None:
    agent = Agent(NEW, khz)
    CheckedQemu.failures = failures
    await agent.start()
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await asked.wait()
    sys.stdout.write(f"{await agent.report()}\n{REPORT_END}")
    sys.stdout.flush()
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Both:
    """The two agents, of which the taker's is a process of its own."""

    old: Agent
    new: asyncio.subprocess.Process
    within_s: float = STAGE_S

    @asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[None]:
        """A part of the test, which ends in time, or both say what the VM does there."""
        try:
            async with asyncio.timeout(self.within_s):
                yield
        except TimeoutError:
            roots = f"{await self.old.report()}\n{await self._of_new()}"
            sys.exit(f"{name} does not end\n{processes()}\n{kernel_messages()}\n{roots}")

    async def _of_new(self) -> str:
        assert self.new.stdout
        self.new.send_signal(signal.SIGUSR1)
        try:
            async with asyncio.timeout(STAGE_S):
                said = await self.new.stdout.readuntil(REPORT_END.encode())
        except (TimeoutError, asyncio.IncompleteReadError):
            return "the taker does not answer"
        return said.decode()


async def drive(machine: str, script: str) -> dict[str, Any]:
    khz = measure_khz()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "serve", str(khz), "1", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout
    old = Agent(OLD, khz)
    stage = Both(old, child).stage
    async with stage("the start of the taker"):
        await child.stdout.readline()
    await old.start()
    definition = VmDefinition(
        NAME,
        ram_bytes=128 * MIB,
        machine=machine,
        cards=(Card(address="10.77.1.77/16"),),
        append="ticker.region=16",
    )
    async with stage("the start of the VM"):
        vm = await old.manager.run(definition)
    first = vm.owner.epoch
    async with stage("the guest's boot"):
        await ticks_of(OLD, 100)
    known = memory_map.unpack(await vm.vmm.hints())
    refused = ""
    async with stage("the handoff that fails"):
        try:
            await hand_over(old.manager, NAME, Target(NEW, channel_to(NEW)), old.phases, PATIENT)
        except MultirootError as error:
            refused = error.message
    async with stage("going on"):
        await ticks_of(OLD, len((await ticks_of(OLD, 0)).counter) + 100)
    async with stage("the handoff"):
        result = await hand_over(old.manager, NAME, Target(NEW, channel_to(NEW)), old.phases, PATIENT)
    async with stage("going on in the other root"):
        after = await ticks_of(NEW, 100)
        answer = await asyncio.to_thread(knock, "10.77.1.77")
        joined = ticks_from_proto(await ticks_of(OLD, 0)).then(ticks_from_proto(after))
    seen = continuity(joined.ticks)
    async with stage("the end"), channel_to(NEW) as channel:
        await vm_pb2_grpc.VmServiceStub(channel).Remove(vm_pb2.RemoveVmRequest(name=NAME, force=True))
    child.kill()
    await child.wait()
    assert seen is not None
    return {
        "refused": refused,
        "registers": len(known.registers),
        "epochs": result.epoch - first,
        "device_state_bytes": result.device_state_bytes,
        "ram_bytes_copied": result.ram_bytes_copied,
        "vmm_ms": (result.resumed_ns - result.stopped_ns) / 1e6,
        "guest_ms": seen.gap_ns / 1e6,
        "answer": answer,
        "unbroken": seen.unbroken,
        "continuity": {key: value for key, value in asdict(seen).items() if key != "reports"},
        "left": [entry.name for entry in old.manager.host.arena.entries()],
    }


def knock(address: str) -> str:
    """The guest's kernel refuses a connection to a port nobody listens on: that it answers is the point."""
    import socket

    try:
        with namespace.entered():
            socket.create_connection((address, 9), timeout=20).close()
    except OSError as error:
        return type(error).__name__
    return "accepted"


if __name__ == "__main__":
    role = sys.argv[1]
    if role == "serve":
        asyncio.run(serve(int(sys.argv[2]), int(sys.argv[3])))
    else:
        # Of a -c program only its own command line has the text.
        text = Path("/proc/self/cmdline").read_bytes().split(b"\0")[2].decode()
        sys.stdout.write(json.dumps(asyncio.run(drive(sys.argv[2], text))) + "\n")
        sys.stdout.flush()
        os._exit(0)  # gRPC's threads need no farewell
