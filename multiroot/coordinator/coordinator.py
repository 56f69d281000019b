# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the steps of an update: forward, or back from wherever it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from multiroot import phase_names
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, STEPS, UPDATE, WITH_NEW_ROOT, Edge, State
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.failpoints import FailPoint, reach
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases

Data = dict[str, Any]

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
    ) -> None:
        """`guests_there` names the VMs that a new root owns which is alive."""
        self._journal = journal
        self._guests_there = guests_there
        self._steps = steps
        self._phases = phases
        self._busy = ""
        self.error = ""

    @property
    def state(self) -> State:
        """How far the update has come."""
        return self._journal.standing().state

    @property
    def joined(self) -> bool:
        """Whether there is a new root that takes VMs."""
        return self.state in (State.JOINED, State.HANDED_OVER, State.COMMITTED)

    @property
    def begun(self) -> tuple[str, ...]:
        """The steps whose effects may exist, oldest first."""
        return self._journal.standing().begun

    @property
    def data(self) -> Mapping[str, Data]:
        """What the steps done so far have left, by step."""
        return self._journal.standing().data

    @asynccontextmanager
    async def busy(self, what: str) -> AsyncIterator[None]:
        """Hold the coordinator while the body runs; raises ConflictError when it is held already."""
        if self._busy:
            raise ConflictError(f"the coordinator is busy: {self._busy}", "wait until it is done")
        self._busy = what
        try:
            yield
        finally:
            self._busy = ""

    async def launch(self, first: Data) -> Mapping[str, Data]:
        """Bring a new root up; on failure give everything back and raise what failed.

        `first` is the plan step's data (the request). Raises ConflictError when a new root is up already.
        """
        async with self.busy("launching a new root"):
            standing = self._journal.standing()
            if standing.begun:
                raise ConflictError(
                    f"a new root is already {standing.state}", "release it first: `multiroot root release`"
                )
            self._journal.reset()
            await self._bring_up(first, tuple(LAUNCH))
            return self.data

    async def update(self, first: Data, until: str) -> State:
        """Go on from wherever the update stands, up to and with step `until`; returns the state reached.

        A failure before the new root has joined takes everything back. After that, what is done stays
        done: VMs that were not handed over go on here, and the next call continues. "retire" is not for
        this call, see `retire`.
        """
        if until not in STEPS or until == PhaseName.RETIRE:
            raise BadRequestError(f"there is no step {until!r}", f"steps: {', '.join(STEPS)}")
        async with self.busy("updating"):
            if not self._journal.standing().begun:
                self._journal.reset()
            self.error = ""
            wanted = list(STEPS)[: list(STEPS).index(until) + 1]
            await self._bring_up(first, [name for name in wanted if name in LAUNCH and not self._done(name)])
            for name in wanted:
                if name in UPDATE and not self._done(name):
                    await self._try(name)
            return self.state

    async def retire(self, first: Data) -> None:
        """The last step, which does not return. When it fails the root goes on, and `error` says why."""
        async with self.busy("retiring"):
            if self.state is not State.COMMITTED:
                raise ConflictError(f"the update is {self.state}, not committed", "see `multiroot update`")
            await self._try(PhaseName.RETIRE, first)

    async def abort(self, *, force: bool = False) -> list[str]:
        """Give everything back from any step before commit: VMs first, then CPUs and memory.

        A VM that does not come back stops it, unless `force`. Returns the names of the VMs that were lost.
        """
        async with self.busy("aborting the update"):
            if self.state in (State.COMMITTED, State.RETIRING):
                raise ConflictError("the update is committed", "start another one to go back to this kernel")
            if PhaseName.START in self.begun and PhaseName.HANDOVER not in self.begun:
                # VMs may have been handed over one by one: to be taken back like the step that moves all.
                self._journal.write(PhaseName.HANDOVER, Edge.BEGIN)
            return await self._take_back(Undoing(force=force), "multiroot update abort")

    def _done(self, name: str) -> bool:
        reached = self._journal.standing().state
        return reached is not State.IDLE and [*STEPS.values()].index(reached) >= [*STEPS].index(name)

    async def _bring_up(self, first: Data, names: Iterable[str]) -> None:
        """Launch steps; on a failure all of the launch is undone."""
        try:
            for name in names:
                await self._do(name, first if name == PhaseName.PLAN else {})
        except (Exception, asyncio.CancelledError) as error:
            self.error = str(error) or "cancelled"
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
            self.error = str(error) or "cancelled"
            if name != PhaseName.HANDOVER:
                await asyncio.shield(self._undo(name, Undoing()))
            raise

    async def release(self, *, force: bool = False) -> list[str]:
        """Take the launch back, step by step; raises MultirootError naming what could not be.

        Refused while the new root owns VMs, unless `force`. Returns the names of the VMs that were lost.
        """
        async with self.busy("releasing the new root"):
            guests = self._guests_there()
            if guests and not force:
                raise ConflictError(f"the new root owns {', '.join(guests)}", HAND_BACK)
            return await self._take_back(Undoing(hand_back=False, force=force), "multiroot root release")

    async def _take_back(self, how: Undoing, command: str) -> list[str]:
        leftovers = await self._undo_all(how)
        if leftovers:
            raise MultirootError(leftovers, f"mend that and run `{command}` again, or add --force")
        return how.lost

    async def recover(self, alive: bool) -> str:
        """After a restart: keep a joined root that is alive, else undo. Returns what it did, for the log."""
        standing = self._journal.standing()
        if not standing.begun:
            return "nothing was under way"
        if self.joined and alive and (not standing.interrupted or standing.begun[-1] in UPDATE):
            if standing.interrupted and standing.begun[-1] != PhaseName.HANDOVER:
                async with self.busy("recovering after a restart"):
                    await self._undo(standing.begun[-1], Undoing())
            return f"the new root is still {standing.state}"
        how = Undoing()
        async with self.busy("recovering after a restart"):
            leftovers = await self._undo_all(how)
        lost = f"; lost with it: {', '.join(how.lost)}" if how.lost else ""
        return (leftovers or f"took back an update that stood at {standing.state}") + lost

    async def _do(self, name: str, data: Data) -> None:
        self._journal.write(name, Edge.BEGIN, **data)
        await reach(FailPoint.STEP_BEGUN, name)
        with self._phases.phase(name):
            result = await self._steps[name].do(self.data)
        await reach(FailPoint.STEP_DONE, name)
        self._journal.write(name, Edge.DONE, **result)

    async def _undo_all(self, how: Undoing) -> str:
        """Undo all begun steps, newest first; returns what failed, "" if nothing.

        Goes on past failures, but not past those that leave the new root alive: nothing it needs may go.
        """
        failures = []
        for name in reversed(self._journal.standing().begun):
            try:
                await self._undo(name, how)
            except MultirootError as error:
                failures.append(f"undoing {name} failed: {error}")
                if name in WITH_NEW_ROOT:
                    break
        return "; ".join(failures)

    async def _undo(self, name: str, how: Undoing) -> None:
        self._journal.write(name, Edge.UNDO)
        await reach(FailPoint.UNDO_BEGUN, name)
        with self._phases.phase(phase_names.undo(name)):
            await self._steps[name].undo(self.data, how)
        await reach(FailPoint.UNDO_DONE, name)
        self._journal.write(name, Edge.UNDONE)
