# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the steps of an update: forward, or back from wherever it stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from multiroot import phase_names
from multiroot.coordinator import outlook, refusals
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, STEPS, UPDATE, WITH_NEW_ROOT, Edge, Standing, State
from multiroot.errors import ConflictError, MultirootError
from multiroot.failpoints import FailPoint, reach
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.racing import OvertakenError, unless

log = logging.getLogger("multirootd")

Data = dict[str, Any]

_UPDATING, _LAUNCHING = "updating", "launching a new root"
_WAITS = (PhaseName.JOIN,)
_TAKEN_BY: Mapping[str, str] = {PhaseName.OFFLINE: "cpus", PhaseName.CARVE: "carve_size"}
HAND_BACK = "hand them back: `multiroot update abort`, or lose them: `multiroot root release --force`"


@dataclass
class Undoing:
    """How steps are undone, and what it costs.

    `hand_back`: VMs in the new root are handed back first. `force`: a root is ended though it owns VMs.
    `lost` gets the names of the VMs that were lost.
    """

    hand_back: bool = True
    force: bool = False
    lost: list[str] = field(default_factory=list)


class Step(Protocol):
    """One step; both halves are idempotent, for a restart may run either a second time."""

    async def do(self, data: Mapping[str, Data]) -> Data:
        """Carry the step out; `data` holds what earlier steps returned. Returns what is journaled as done."""

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        """Take back whatever of this step may have happened; VMs that are lost by that go to `how.lost`."""


class Coordinator:
    """One update at a time; a second request while one runs is refused, not queued."""

    def __init__(
        self,
        journal: Journal,
        steps: Mapping[str, Step],
        phases: Phases,
        guests_there: Callable[[], list[str]] = list,
        stay: Callable[[], object] = lambda: None,
    ) -> None:
        """`guests_there` names the VMs that a new root owns which is alive. `stay` has those stay, the canary
        among them, which a handover under way has not begun to move.
        """
        self._journal = journal
        self._guests_there = guests_there
        self._stay = stay
        self._steps = steps
        self._phases = phases
        self._doing = ""
        self._idle = asyncio.Event()
        self._idle.set()
        self.given_back: Data = {}  # what steps had taken that were undone last, by its name in the plan
        self._unwanted = asyncio.Event()  # what is under way goes no further: somebody waits to take it back

    @property
    def standing(self) -> Standing:
        """Where the update stands by the journal."""
        return self._journal.standing()

    @property
    def doing(self) -> str:
        """What it is busy with, in words that go on "it is"; "" if with nothing."""
        aborted = self._doing and self._unwanted.is_set()
        return f"{self._doing}, which is being aborted" if aborted else self._doing

    @property
    def state(self) -> State:
        """How far the update has come."""
        return self.standing.state

    @property
    def problem(self) -> MultirootError | None:
        """Why the journal cannot be read; None if it can."""
        return self._journal.problem

    @property
    def error(self) -> str:
        """Why the last step failed, or why the journal cannot be read; "" if neither."""
        return str(self.problem or self.standing.error)

    @property
    def joined(self) -> bool:
        """Whether there is a new root that takes VMs."""
        return self.state in (State.JOINED, State.HANDED_OVER, State.COMMITTED)

    @property
    def begun(self) -> tuple[str, ...]:
        """The steps whose effects may exist, oldest first."""
        return self.standing.begun

    @property
    def data(self) -> Mapping[str, Data]:
        """What the steps done so far have left, by step."""
        return self.standing.data

    @asynccontextmanager
    async def busy(self, what: str) -> AsyncIterator[None]:
        """Hold the coordinator while the body runs; raises ConflictError when it is held already."""
        self.check_idle()
        self._doing = what
        self._idle.clear()
        try:
            yield
        finally:
            self._doing = ""
            self._idle.set()

    def check_idle(self) -> None:
        """Raises ConflictError while something is under way: what is to follow it can't be said yet."""
        if self.doing:
            raise refusals.under_way(
                self.doing, stoppable=self._doing in (_UPDATING, _LAUNCHING) and not self._unwanted.is_set()
            )

    @asynccontextmanager
    async def _changing(self, what: str) -> AsyncIterator[Standing]:
        """The same for what changes an update; raises MultirootError when the journal cannot be read."""
        async with self.busy(what):
            self._journal.check()
            yield self.standing

    async def launch(self, first: Data, *, keep: bool = False) -> Mapping[str, Data]:
        """Bring a new root up; on failure give everything back and raise what failed.

        `first` is the plan step's data (the request). With `keep` a root that was started and did not come up
        stays as it is, to be looked into, until it is released. Raises ConflictError when a new root is up
        already.
        """
        async with self._changing(_LAUNCHING) as standing:
            if standing.begun:
                raise ConflictError(
                    f"a new root is already {standing.state}", "release it first: `multiroot root release`"
                )
            self.given_back = {}
            self._journal.reset()
            await self._bring_up({PhaseName.PLAN: first}, tuple(LAUNCH), keep=keep)
            return self.data

    async def update(self, first: Data, until: str, told: Data | None = None) -> State:
        """Go on from wherever the update stands, up to and with step `until`; returns the state reached.

        A failure before the new root has joined takes everything back. After that, what is done stays
        done: VMs that were not handed over go on here, and the next call continues. "retire" goes as far as
        the commit, the rest is for `retire`. The handover and it get what the update was `told`, and so does
        the join, if a handover is to follow. Raises ConflictError, and changes nothing, when `first` names
        another kernel, or other resources, than the update under way has.
        """
        refusals.need_step(until)
        async with self._changing(_UPDATING) as standing:
            if standing.undoing and standing.begun and not self.joined:
                raise ConflictError(
                    f"the update is being taken back and stands at {standing.state}",
                    "finish that: `multiroot update resume`",
                )
            if standing.begun:
                refusals.refuse_another(first, standing)
            else:
                self._journal.reset()
            self.given_back = {}
            told = told or {}
            self._journal.write(until, Edge.WANTED, **told)
            wanted = list(STEPS)[: list(STEPS).index(until) + 1]
            begins: dict[str, Data] = {PhaseName.PLAN: first}
            if PhaseName.HANDOVER in wanted:
                begins[PhaseName.JOIN] = {"then_handover": told}
            launch = [name for name in wanted if name in LAUNCH and not self._done(name)]
            await self._bring_up(begins, launch)
            for name in wanted:
                if name in UPDATE and name != PhaseName.RETIRE and not self._done(name):
                    self.check_wanted()
                    await self._try(name, told if name == PhaseName.HANDOVER else {})
            return self.state

    def way_on(self, until: str = "") -> str:
        """The step that an interrupted update goes on to; "" when what is left is to take it back.

        `until` goes on to another step than what was wanted. Raises ConflictError when there is nothing to
        go on with, BadRequestError when there is no such step.
        """
        if until:
            refusals.need_step(until)
        self._journal.check()
        standing = self.standing
        if not standing.begun:
            raise ConflictError("no update is under way", "start one: `multiroot update --kernel NAME`")
        if standing.undoing and not until:
            return ""
        wanted = until or (standing.wanted[0] if standing.wanted else "")
        if not wanted or self._done(wanted):
            raise ConflictError(
                f"the update is {standing.state}, and no more was asked for",
                "`multiroot update resume --until retire` goes on, `multiroot update abort` goes back",
            )
        return wanted

    async def retire(self) -> None:
        """The last step, which does not return. When it fails the root goes on, and `error` says why."""
        async with self._changing("retiring") as standing:
            if standing.state is not State.COMMITTED:
                raise ConflictError(
                    f"the update is {standing.state}, not committed",
                    "`multiroot update show` tells what is to be done",
                )
            await self._try(PhaseName.RETIRE, standing.wanted[1] if standing.wanted else {})

    async def abort(self, *, force: bool = False) -> list[str]:
        """Give everything back from any step before commit: VMs first, then CPUs and memory.

        An update or a launch that is under way takes no further step, waits for no new root, moves no further
        VM, and is waited for.
        A VM that does not come back keeps it from that, unless `force`. Returns the names of the VMs that
        were lost.
        """
        if self._doing not in (_UPDATING, _LAUNCHING):
            self.given_back = {}
        else:
            self._unwanted.set()
            try:
                self._stay()
                await self._idle.wait()
            finally:
                self._unwanted.clear()
        async with self._changing("aborting the update"):
            if self.state in (State.COMMITTED, State.RETIRING):
                raise ConflictError("the update is committed", "start another one to go back to this kernel")
            if PhaseName.START in self.begun and PhaseName.HANDOVER not in self.begun:
                # VMs may have been handed over one by one: to be taken back like the step that moves all.
                self._journal.write(PhaseName.HANDOVER, Edge.BEGIN)
            return await self._take_back(Undoing(force=force), "multiroot update abort")

    def check_wanted(self) -> None:
        """Raises ConflictError if somebody waits to take back what is under way."""
        if self._unwanted.is_set():
            raise self._aborted()

    def _aborted(self) -> ConflictError:
        what = "update" if self._doing == _UPDATING else "launch"
        return ConflictError(f"the {what} is being aborted", "`multiroot update show` tells how far that is")

    def _done(self, name: str) -> bool:
        reached = self.state
        return reached is not State.IDLE and [*STEPS.values()].index(reached) >= [*STEPS].index(name)

    async def _bring_up(
        self, begins: Mapping[str, Data], names: Iterable[str], *, keep: bool = False
    ) -> None:
        """Launch steps; `begins` is what steps begin with, by step.

        On a failure all of the launch is undone, unless `keep` and the root was started.
        """
        try:
            for name in names:
                self.check_wanted()
                await self._do(name, begins.get(name, {}))
        except (Exception, asyncio.CancelledError) as error:
            if keep and isinstance(error, MultirootError) and PhaseName.START in self.begun:
                hint = f"{error.hint}; " if error.hint else ""
                raise type(error)(error.message, f"{hint}it stays as it is: {outlook.LOOK}") from error
            leftovers = await asyncio.shield(self._undo_all(Undoing()))
            if leftovers and isinstance(error, MultirootError):
                raise MultirootError(f"{error.message}; then {leftovers}", error.hint) from error
            raise

    async def _try(self, name: str, first: Data | None = None) -> None:
        """A step after the launch: its failure is kept for those who ask, and undoes that step alone.

        What a handover has moved stays where it is.
        """
        try:
            await self._do(name, first or {})
        except (Exception, asyncio.CancelledError) as error:
            if name != PhaseName.HANDOVER:
                await asyncio.shield(self._undo(name, Undoing()))
            elif isinstance(error, MultirootError):
                self.check_wanted()  # then that is why, and not that VMs stay
            raise

    async def release(self, *, force: bool = False) -> list[str]:
        """Take the launch back, step by step; raises MultirootError naming what could not be.

        Refused while the new root owns VMs, unless `force`. Returns the names of the VMs that were lost.
        """
        async with self._changing("releasing the new root"):
            guests = self._guests_there()
            if guests and not force:
                raise ConflictError(f"the new root owns {', '.join(guests)}", HAND_BACK)
            self.given_back = {}
            return await self._take_back(Undoing(hand_back=False, force=force), "multiroot root release")

    async def _take_back(self, how: Undoing, command: str) -> list[str]:
        leftovers = await self._undo_all(how)
        if leftovers:
            guests = self._guests_there()
            lose = f"; `{command} --force` loses {', '.join(guests)}" if guests else ""
            raise MultirootError(leftovers, f"mend that and run `{command}` again{lose}")
        return how.lost

    async def recover(self, alive: bool) -> str:
        """After a restart: keep a joined root that is alive, else undo. Returns what it did, for the log."""
        standing = self.standing
        if self._journal.problem:
            return f"nothing is taken back: {self._journal.problem}"
        if not standing.begun:
            return "nothing was under way"
        # None can be handed back yet, for this agent does not answer yet.
        how = Undoing(hand_back=False, force=standing.forced)
        async with self.busy("recovering after a restart"):
            if self.joined and alive and (not standing.interrupted or standing.begun[-1] in UPDATE):
                if standing.interrupted and standing.begun[-1] != PhaseName.HANDOVER:
                    await self._undo(standing.begun[-1], how)
                return f"the new root is still {standing.state}"
            guests = self._guests_there()
            if guests and not how.force:
                return f"nothing is taken back: the new root owns {', '.join(guests)} ({HAND_BACK})"
            leftovers = await self._undo_all(how)
        lost = f"; lost with it: {', '.join(how.lost)}" if how.lost else ""
        return (leftovers or f"took back an update that stood at {standing.state}") + lost

    async def _do(self, name: str, data: Data) -> None:
        self._journal.write(name, Edge.BEGIN, **data)
        with self._failing(name):
            await reach(FailPoint.STEP_BEGUN, name)
            with self._phases.phase(name):
                work = self._steps[name].do(self.data)
                result = await (self._while_wanted(work) if name in _WAITS else work)
            await reach(FailPoint.STEP_DONE, name)
        self._journal.write(name, Edge.DONE, **result)

    async def _while_wanted(self, waiting: Coroutine[Any, Any, Data]) -> Data:
        """A step that only waits. It ends, as a failure, when nobody wants any more what it waits for."""
        try:
            return await unless(waiting, self._unwanted.wait())
        except OvertakenError:
            raise self._aborted() from None

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """Keep in the journal why the body, a step or its undo, failed.

        Of an error that nobody expected the log gets where it was, too.
        """
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            if not isinstance(error, MultirootError | asyncio.CancelledError):
                log.exception("%s failed", name)
            try:
                self._journal.write(name, Edge.FAILED, error=refusals.why(error))
            except MultirootError as unwritten:
                log.error("%s failed: %s; %s", name, error, unwritten)
            raise

    async def _undo_all(self, how: Undoing) -> str:
        """Undo all begun steps, newest first; returns what failed, "" if nothing.

        Goes on past failures, but not past those that leave the new root alive: nothing it needs may go.
        """
        failures = []
        for name in reversed(self.begun):
            try:
                await self._undo(name, how)
            except Exception as error:  # noqa: BLE001 - logged in `_failing`; the other steps are undone, too
                failures.append(f"undoing {name} failed: {refusals.why(error)}")
                if name in WITH_NEW_ROOT:
                    break
        return "; ".join(failures)

    async def _undo(self, name: str, how: Undoing) -> None:
        self._journal.write(name, Edge.UNDO, **({"force": True} if how.force else {}))
        before = len(how.lost)
        with self._failing(name):
            await reach(FailPoint.UNDO_BEGUN, name)
            with self._phases.phase(phase_names.undo(name)):
                await self._steps[name].undo(self.data, how)
            await reach(FailPoint.UNDO_DONE, name)
        if taken := _TAKEN_BY.get(name):
            self.given_back[taken] = self.data.get(PhaseName.PLAN, {}).get(taken)
        lost = how.lost[before:]
        self._journal.write(name, Edge.UNDONE, **({"lost": lost} if lost else {}))
