# SPDX-License-Identifier: GPL-2.0-or-later
"""CoordinatorService: the update as calls that stream their phases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from multiroot.arena.layout import CANARY
from multiroot.coordinator import outlook
from multiroot.coordinator.adoption import Adoption
from multiroot.coordinator.coordinator import Coordinator, Data
from multiroot.coordinator.crash import Report
from multiroot.coordinator.join import Console
from multiroot.coordinator.requests import request_data
from multiroot.coordinator.states import UPDATE
from multiroot.errors import BadRequestError, ConflictError, PeerLostError
from multiroot.handoff import terms as handoff_terms
from multiroot.handoff.evacuation import Outcome, check
from multiroot.handoff.terms import Terms
from multiroot.launch import kernels
from multiroot.passthrough.functions import Functions, parse_address
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.rpc import phases as wire
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc
from multiroot.storage.storage_service import from_proto

log = logging.getLogger("multirootd")

# Sends its caller a message before the result.
Tell = Callable[[coordinator_pb2.Progress], None]


class HandOver(Protocol):
    """Hands VMs to the root called `to`, and tells `done` of each as soon as it is settled."""

    async def __call__(
        self, names: Sequence[str], to: str, terms: Terms, phases: Phases, done: Callable[[Outcome], None]
    ) -> list[Outcome]: ...


class Expect(Protocol):
    """Has the root called `to` start VMMs for VMs that are handed over later, or end those."""

    async def __call__(
        self, names: Sequence[str], to: str, phases: Phases, at_once: int, *, undo: bool
    ) -> list[Outcome]: ...


class Cancel(Protocol):
    """Has one VM stay that is being handed over, or all if `name` is ""."""

    async def __call__(self, name: str, *, here: bool) -> coordinator_pb2.CancelHandoffResponse: ...


@dataclass(frozen=True)
class CoordinatorParts:
    """What the service answers from.

    `plan` makes a plan's JSON from a request and changes nothing. `hand_over` hands VMs to another root,
    `expect` has that root get ready for it, and `cancel` puts an end to it.
    `console` has what a new root's kernel says. `owners` tells which root owns which VM. `root` is this
    root's number. `crash` is the report of a new root that ended by itself, if one did.
    """

    coordinator: Coordinator
    adoption: Adoption
    phases: Phases
    plan: Callable[[coordinator_pb2.LaunchRequest], Awaitable[str]]
    hand_over: HandOver
    expect: Expect
    cancel: Cancel
    console: Console
    owners: Callable[[], Mapping[str, int]]
    root: int
    crash: Callable[[], Report | None] = lambda: None
    check_canary: Callable[[], None] = lambda: None


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """Errors are raised as MultirootError; the server's interceptor turns them into statuses."""

    def __init__(self, parts: CoordinatorParts) -> None:
        self._coordinator = parts.coordinator
        self._adoption = parts.adoption
        self._phases = parts.phases
        self._parts = parts
        self._retiring: asyncio.Task[None] | None = None

    async def Plan(
        self, request: coordinator_pb2.LaunchRequest, context: Any
    ) -> coordinator_pb2.PlanResponse:
        return coordinator_pb2.PlanResponse(plan_json=await self._parts.plan(request))

    async def Launch(
        self, request: coordinator_pb2.LaunchRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        self._refuse_while_adopting()

        async def work(_: Tell) -> coordinator_pb2.Progress:
            data = await self._coordinator.launch({"request": request_data(request)}, keep=request.keep)
            return coordinator_pb2.Progress(launched=launch_result(data))

        async for progress in self._stream(work):
            yield progress

    async def Release(
        self, request: coordinator_pb2.ReleaseRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        async for progress in self._give_back(lambda: self._coordinator.release(force=request.force)):
            yield progress

    async def Handoff(
        self, request: coordinator_pb2.HandoffRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        to, names = _whom(request), list(request.names)
        terms = handoff_terms.from_proto(request.terms)

        async def work(tell: Tell) -> coordinator_pb2.Progress | None:
            async with self._coordinator.busy(f"handing {', '.join(names) or 'all VMs'} over"):
                self._check_joined(to)
                if request.all:
                    names.extend(self._of_this_root())
                outcomes = await self._parts.hand_over(names, to, terms, self._phases, _telling(tell))
                check(outcomes, f"multiroot handoff --to {to}")
                return None

        async for progress in self._stream(work):
            yield progress

    async def PrepareHandoff(
        self, request: coordinator_pb2.PrepareHandoffRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        to, names = _whom(request), list(request.names)
        at_once = request.preparing or handoff_terms.PREPARING

        async def work(_: Tell) -> coordinator_pb2.Progress:
            async with self._coordinator.busy(f"preparing {', '.join(names) or 'all VMs'}"):
                self._check_joined(to)
                if request.all:
                    names.extend(self._of_this_root())
                outcomes = await self._parts.expect(names, to, self._phases, at_once, undo=request.undo)
                check(outcomes, f"multiroot handoff prepare --to {to}")
                done = coordinator_pb2.PrepareHandoffResult(names=[outcome.name for outcome in outcomes])
                return coordinator_pb2.Progress(prepared=done)

        async for progress in self._stream(work):
            yield progress

    def _check_joined(self, to: str) -> None:
        if to == "new" and not self._coordinator.joined:
            start = f"multiroot root launch --kernel {kernels.example()}"
            raise PeerLostError("no new root has joined", f"start one: `{start}`")

    async def CancelHandoff(
        self, request: coordinator_pb2.CancelHandoffRequest, context: Any
    ) -> coordinator_pb2.CancelHandoffResponse:
        return await self._parts.cancel(request.name, here=request.here)

    def _check_known(self, names: Sequence[str]) -> None:
        """Raises BadRequestError for a name that no VM has in any root."""
        owners = self._parts.owners()
        for name in names:
            if name not in owners:
                there_are = f"there are: {', '.join(sorted(owners))}" if owners else "there are none"
                raise BadRequestError(f"no VM named {name!r} that could go first", there_are)

    def _of_this_root(self) -> list[str]:
        """VMs that this root owns but the canary, by name."""
        owners = self._parts.owners()
        return sorted(name for name in owners if owners[name] == self._parts.root and name != CANARY)

    async def GetState(
        self, request: coordinator_pb2.GetStateRequest, context: Any
    ) -> coordinator_pb2.CoordinatorState:
        standing = self._coordinator.standing
        return coordinator_pb2.CoordinatorState(
            state=standing.state.value,
            plan_json=standing.data.get("plan", {}).get("plan", ""),
            error=self._coordinator.error,
            root=self._parts.root,
            taking_over=self._adoption.state.value,
            taking_over_error=self._adoption.error,
            phases=[wire.to_proto(phase) for phase in self._phases.finished],
            steps=[
                coordinator_pb2.StepTime(
                    step=each.step, edge=each.edge.value, begin_ns=each.begin_ns, end_ns=each.end_ns
                )
                for each in standing.times
            ],
            owners=[
                coordinator_pb2.VmOwner(name=name, root=root)
                for name, root in sorted(self._parts.owners().items())
            ],
            next=outlook.next_step(standing, self._coordinator.doing, self._coordinator.problem),
            lost=standing.lost,
            wanted=standing.wanted[0] if standing.wanted else "",
            crash=_crash(self._parts.crash()),
        )

    async def Update(
        self, request: coordinator_pb2.UpdateRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        self._refuse_while_adopting()
        if request.launch.keep:
            raise BadRequestError(
                "an update that fails takes its new root back",
                f"`multiroot root launch --keep --kernel {kernels.example()}` keeps one",
            )
        for device in request.devices:
            Functions().need(parse_address(device))
        terms = handoff_terms.from_proto(request.terms)
        self._check_known(terms.first)
        told = {
            "verify": request.verify,
            "devices": list(request.devices),
            "terms": terms.to_dict(),
            "no_canary": request.no_canary,
        }
        first = {"request": request_data(request.launch)}
        until = request.until or PhaseName.RETIRE
        if until in UPDATE and not request.no_canary and not self._coordinator.begun:
            self._parts.check_canary()
        async for progress in self._update(first, until, told, context):
            yield progress

    async def Resume(
        self, request: coordinator_pb2.ResumeRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        self._coordinator.check_idle()
        standing = self._coordinator.standing
        until = self._coordinator.way_on(request.until)
        if until:
            told = dict(standing.wanted[1]) if standing.wanted else {}
            if request.no_canary:
                told["no_canary"] = True
            if request.downtime_limit_ms:
                terms = Terms.from_dict(told.get("terms", {}))
                told["terms"] = replace(terms, downtime_ms=request.downtime_limit_ms).to_dict()
            going_on = self._update({}, until, told, context)
        else:
            going_on = self._give_back(lambda: self._coordinator.abort(force=standing.forced))
        async for progress in going_on:
            yield progress

    async def _update(
        self, first: Data, until: str, told: Data, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        retiring = until == PhaseName.RETIRE

        async def work(_: Tell) -> coordinator_pb2.Progress:
            state = await self._coordinator.update(first, until, told)
            root = self._coordinator.data.get("carve", {}).get("root", 0)
            result = coordinator_pb2.UpdateResult(state=state.value, root=root, retiring=retiring)
            return coordinator_pb2.Progress(updated=result)

        async for progress in self._stream(work):
            yield progress
        if retiring:
            # The network card goes with this root, and with it the caller's connection: the call ends first.
            context.add_done_callback(lambda _: self._retire())

    def _retire(self) -> None:
        self._retiring = asyncio.create_task(self._coordinator.retire())
        self._retiring.add_done_callback(partial(_log_failure, "retiring"))

    async def AbortUpdate(
        self, request: coordinator_pb2.AbortUpdateRequest, context: Any
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        async for progress in self._give_back(lambda: self._coordinator.abort(force=request.force)):
            yield progress

    async def TakeOver(
        self, request: coordinator_pb2.TakeOverRequest, context: Any
    ) -> coordinator_pb2.CoordinatorState:
        for phase in request.phases:
            self._phases.add(wire.from_proto(phase))
        left = [from_proto(filesystem) for filesystem in request.filesystems]
        self._adoption.begin(verify=request.verify, devices=request.devices, left=left)
        return await self.GetState(coordinator_pb2.GetStateRequest(), context)

    async def _give_back(
        self, undo: Callable[[], Awaitable[list[str]]]
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        """Take the update back by `undo`; the result is what this root has got back."""

        async def work(_: Tell) -> coordinator_pb2.Progress:
            idle = not self._coordinator.begun
            lost = await undo()
            given = self._coordinator.given_back
            result = coordinator_pb2.ReleaseResult(
                cpus=given.get("cpus") or "",
                memory_bytes=given.get("carve_size") or 0,
                lost=lost,
                idle=idle and not given,
            )
            return coordinator_pb2.Progress(released=result)

        async for progress in self._stream(work):
            yield progress

    def _refuse_while_adopting(self) -> None:
        """A root that has not everything yet can't give it on."""
        if self._adoption.busy:
            raise ConflictError(f"this root is {self._adoption.state}", "wait until it has everything")

    async def _stream(
        self, work: Callable[[Tell], Awaitable[coordinator_pb2.Progress | None]]
    ) -> AsyncIterator[coordinator_pb2.Progress]:
        """Phases, a new root's messages and what `work` tells while it runs, then its result if it has one.

        A caller that goes away does not stop the work: what was begun is brought to an end, for a launch cut
        off in the middle would help nobody.
        """
        queue: asyncio.Queue[coordinator_pb2.Progress | None] = asyncio.Queue()

        def add_phase(phase: Phase) -> None:
            queue.put_nowait(coordinator_pb2.Progress(phase=wire.to_proto(phase)))

        def add_line(line: str) -> None:
            queue.put_nowait(coordinator_pb2.Progress(said=line))

        subscriptions = (self._phases.subscribe(add_phase), self._parts.console.subscribe(add_line))
        task = asyncio.ensure_future(work(queue.put_nowait))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        heard = False
        try:
            while (progress := await queue.get()) is not None:
                yield progress
            heard = True
            if result := await task:
                yield result
        finally:
            if not heard:
                task.add_done_callback(partial(_log_failure, "it ended when nobody listened any more"))
            for unsubscribe in subscriptions:
                unsubscribe()


def _whom(request: coordinator_pb2.HandoffRequest | coordinator_pb2.PrepareHandoffRequest) -> str:
    """Which root is to take the VMs of a request that names some, or all."""
    to = request.to or "new"
    if to not in ("old", "new"):
        raise BadRequestError(f"a VM cannot be handed to {to!r}", 'say "old" or "new"')
    if bool(request.names) == request.all:
        raise BadRequestError("which VMs are to be handed over?", "name them: `multiroot vm list`")
    return to


def _telling(tell: Tell) -> Callable[[Outcome], None]:
    """Tells of each VM that has arrived."""

    def tell_of(outcome: Outcome) -> None:
        if outcome.result:
            tell(coordinator_pb2.Progress(handed_off=outcome.result))

    return tell_of


def _log_failure(what: str, task: asyncio.Task[Any]) -> None:
    """The error is in the coordinator's state for whoever asks; here it goes to the log."""
    error = None if task.cancelled() else task.exception()
    if error:
        log.error("%s: %s", what, error)


def _crash(report: Report | None) -> coordinator_pb2.Crash | None:
    if report is None:
        return None
    return coordinator_pb2.Crash(root=report.root, what=report.what, hint=report.hint, traces=report.traces)


def launch_result(data: Mapping[str, Data]) -> coordinator_pb2.LaunchResult:
    """The answer made from what the steps left."""
    join, start = data["join"], data["start"]
    return coordinator_pb2.LaunchResult(
        root=join["root"],
        address=join["address"],
        start_ns=start["start_ns"],
        attached_ns=join["attached_ns"],
        ready_ns=join["ready_ns"],
    )
