# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a launch: each calls what plans or acts (`plan`, `kexec`, `launch`) and says how to undo it.

What a step returns goes to the journal; undoing works from the journal alone, for the agent may have been
restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from multiroot.arena.atomics import tsc_clock
from multiroot.clocks import wall_clock
from multiroot.coordinator import crash
from multiroot.coordinator.coordinator import HAND_BACK, Data, Step, Undoing
from multiroot.coordinator.join import CONSOLES, JOIN_TIMEOUT_S, BootWatch, Console, wait_for_join
from multiroot.coordinator.requests import request_data
from multiroot.device.handle import Device
from multiroot.errors import MultirootError, PeerLostError
from multiroot.launch import carve as carving
from multiroot.launch import kernel_log, load
from multiroot.net.network import RootNetwork
from multiroot.phase_names import PhaseName
from multiroot.ranges import Range
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers, Role
from multiroot.rpc.keys import Keys, make_pair
from multiroot.rpc.status import translated
from multiroot.rpc.token_file import TOKEN_FILE
from multiroot.rpc.v1 import coordinator_pb2, root_pb2, root_pb2_grpc
from multiroot.units import format_cpu_list

if TYPE_CHECKING:
    from multiroot.launch.session import Prepared
    from multiroot.plan.planner import Plan

ANSWER_TIMEOUT_S = 10


async def _nobody_waits() -> None:
    """Nobody wants to know of a new root's end."""


@dataclass
class LaunchContext:
    """What the steps work with.

    The coordinator's claim is held from the carve to its undo: a root has one coordinator. `open_device`
    opens /dev/multiroot a second time for it. `sys` is where sysfs is. `console` has what a new root's kernel
    says while it comes up; what one said that did not is kept in the folder `consoles`. `token` is the
    file of the token that callers from outside this machine must bring, if there is one. `ended` is called
    when a new root has been ended, or none ran; as long as it fails the new root's memory stays taken.
    `comes_for_vms` is called when one begins to come up that VMs will be handed to, a canary first.
    """

    device: Device
    peers: Peers
    neighbours: Neighbours
    kernels: Path
    network: RootNetwork
    tsc_khz: int
    ended: Callable[[], Awaitable[object]] = _nobody_waits
    comes_for_vms: Callable[[], object] = lambda: None
    console: Console = field(default_factory=Console)
    consoles: Path = CONSOLES
    token: Path = TOKEN_FILE
    open_device: Callable[[], Device] = Device
    sys: Path = carving.SYS
    prepared: Prepared | None = field(default=None, repr=False)
    keys: Keys | None = field(default=None, repr=False)
    _claimed: Device | None = field(default=None, repr=False)

    def claimed(self) -> Device:
        """The device with the coordinator's claim; raises ConflictError when somebody else has it."""
        if self._claimed is None:
            device = self.open_device()
            try:
                device.claim()
            except MultirootError:
                device.close()
                raise
            self._claimed = device
        return self._claimed

    def drop_claim(self) -> None:
        """Let others coordinate."""
        if self._claimed is not None:
            self._claimed.close()
            self._claimed = None

    async def reclaim(self, made: Plan, how: Undoing) -> None:
        """End whatever runs on the plan's CPUs, and have them back; raises what `load.reclaim` raises."""
        device = self.claimed()
        how.lost += await asyncio.to_thread(load.reclaim, device, made, force=how.force, hint=HAND_BACK)
        await self.ended()

    def ns(self, tsc: int) -> int:
        """TSC ticks on the machine-wide clock."""
        return tsc * 1_000_000 // self.tsc_khz


def make_steps(context: LaunchContext) -> dict[str, Step]:
    """The steps by their names in `states.LAUNCH`."""
    return {
        "plan": PlanStep(context),
        "carve": CarveStep(context),
        "offline": OfflineStep(context),
        "load": LoadStep(context),
        "start": StartStep(context),
        "join": JoinStep(context),
    }


async def make_plan(context: LaunchContext, request: coordinator_pb2.LaunchRequest) -> str:
    """The plan for `request` as JSON; changes nothing. Raises what the planner refuses with."""
    return (await asyncio.to_thread(_prepare, context, request_data(request))).plan.to_json()


def _prepare(context: LaunchContext, request: Data, keys: Keys | None = None) -> Prepared:
    """See `prepare_launch`. An agent that starts has nothing to plan, and a new root's is waited for.

    What this imports in its thread keeps no other call waiting.
    """
    from multiroot.coordinator.planning import prepare_launch

    return prepare_launch(context, request, keys)


def _planned(data: Mapping[str, Data]) -> Plan:
    from multiroot.plan.planner import Plan

    return Plan.from_json(data["plan"]["plan"])


@dataclass(frozen=True)
class PlanStep:
    """Decides who gets what, and builds what is to be loaded."""

    context: LaunchContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        ours, theirs = await asyncio.to_thread(make_pair)
        prepared = await asyncio.to_thread(_prepare, self.context, data["plan"]["request"], theirs)
        self.context.prepared, self.context.keys = prepared, ours
        return {
            "plan": prepared.plan.to_json(),
            "cpus": format_cpu_list([cpu.number for cpu in prepared.plan.cpus]),
            "carve_size": prepared.plan.carve.size,
        }

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        """Planning changes nothing."""
        self.context.prepared = self.context.keys = None


@dataclass(frozen=True)
class CarveStep:
    """Takes the memory: blocks offline, range registered, shared area made, link and doorbell up."""

    context: LaunchContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        made = _planned(data)
        device = self.context.claimed()
        await asyncio.to_thread(carving.offline_blocks, made.blocks, self.context.sys)
        await asyncio.to_thread(load.carve, device, made)
        child = await self.context.neighbours.attach_child(self.context.keys)
        self.context.keys = None
        await self.context.network.ensure()
        return {"root": child.root}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        made = _planned(data)
        await self.context.neighbours.detach_child()
        await asyncio.to_thread(load.uncarve, self.context.claimed())
        await asyncio.to_thread(carving.online_blocks, made.blocks, self.context.sys)
        self.context.drop_claim()


@dataclass(frozen=True)
class OfflineStep:
    """Takes the CPUs: offline, then granted, so that nobody brings them online here."""

    context: LaunchContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        made = _planned(data)
        await asyncio.to_thread(carving.offline_cpus, [cpu.number for cpu in made.cpus], self.context.sys)
        await asyncio.to_thread(load.grant, self.context.claimed(), made)
        return {}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        made = _planned(data)
        await self.context.reclaim(made, how)
        await asyncio.to_thread(carving.online_cpus, [cpu.number for cpu in made.cpus], self.context.sys)


@dataclass(frozen=True)
class LoadStep:
    """Copies what was built into the carve, where nothing is left of what an earlier kernel has said."""

    context: LaunchContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        prepared = self.context.prepared
        if prepared is None:
            raise MultirootError("what was to be loaded is gone with an earlier agent", "start again")
        where = kernel_log.where_kernel_is(prepared.plan)
        await asyncio.to_thread(kernel_log.forget, self.context.claimed(), where)
        size = await asyncio.to_thread(load.write, self.context.claimed(), prepared.boot)
        # Tens of megabytes that nobody needs twice.
        self.context.prepared = None
        return {
            "entry": prepared.entry.to_dict(),
            "release": prepared.boot.release,
            "command_line": prepared.boot.command_line,
            "bytes": size,
        }

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        """What was copied goes with the carve."""


@dataclass(frozen=True)
class StartStep:
    """Sends the first CPU to the kernel."""

    context: LaunchContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        entry = load.Entry.from_dict(data["load"]["entry"])
        started = await asyncio.to_thread(load.start, self.context.claimed(), _planned(data), entry)
        return {"start_ns": self.context.ns(started.tsc_sipi), "entry_ns": self.context.ns(started.tsc_entry)}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        await self.context.reclaim(_planned(data), how)


@dataclass(frozen=True)
class JoinStep:
    """Waits until the new root's module is attached and its agent answers all calls over the link.

    What its kernel says goes to `context.console` meanwhile.
    """

    context: LaunchContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        timeout = data["plan"]["request"]["join_timeout_s"] or JOIN_TIMEOUT_S
        child = self.context.peers.get(Role.CHILD)
        if child is None:
            raise PeerLostError("the new root is gone")
        handover = data.get(PhaseName.JOIN, {}).get("then_handover")
        if handover is not None and not handover.get("no_canary"):
            self.context.comes_for_vms()
        where = kernel_log.where_kernel_is(_planned(data))
        watch = BootWatch(kernel_log.KernelLog(self.context.device, where), self.context.console)
        status = root_pb2.RootStatus()

        async def learned() -> None:
            status.CopyFrom(await self._status(timeout))

        await wait_for_join(
            self.context.peers,
            child,
            watch,
            timeout,
            learned,
            self.context.consoles,
            lambda: post_mortem(self.context.device, where, child.root),
        )
        return {
            "root": status.root,
            "release": status.kernel_release,
            "address": child.address,
            "attached_ns": self.context.ns(child.attached_tsc),
            "ready_ns": self.context.ns(child.ready_tsc),
        }

    async def _status(self, timeout_s: float) -> root_pb2.RootStatus:
        """What it says of itself, once its agent answers all calls; it has the right time at once."""
        with translated("the new root's agent"):
            stub = root_pb2_grpc.RootServiceStub(self.context.neighbours.channel("new"))
            await stub.SetClock(
                root_pb2.SetClockRequest(
                    wall_offset_ns=-wall_clock(tsc_clock(self.context.tsc_khz)).offset()
                ),
                timeout=ANSWER_TIMEOUT_S,
                wait_for_ready=True,
            )
            return await stub.GetStatus(root_pb2.GetStatusRequest(), timeout=timeout_s)

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        """Joining is the new root's doing; it ends with its start's undo."""


def post_mortem(device: Device, where: Range, root: int) -> list[str]:
    """What the CPUs of root number `root` did, whose kernel is in `where`: lines to be shown."""
    # What hardly ever happens costs no agent time when it starts.
    from multiroot.launch.post_mortem import traces_of

    return traces_of(device, [where], root)


def report(context: LaunchContext, data: Mapping[str, Data], root: int) -> crash.Report:
    """What is known of a new root that ended by itself; `data` is what the steps of its launch have left."""
    where = kernel_log.where_kernel_is(_planned(data))
    return crash.look(
        context.device, where, root, lambda: post_mortem(context.device, where, root), context.consoles
    )
