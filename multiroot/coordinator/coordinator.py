# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the steps of an update: forward, or back from wherever it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from multiroot.coordinator.journal import Journal
from multiroot.coordinator.machine import LAUNCH, Edge, State
from multiroot.errors import ConflictError, MultirootError
from multiroot.phases import Phases

Data = dict[str, Any]


class Step(Protocol):
    """One step; both halves are idempotent, for a restart may run either a second time."""

    async def do(self, data: Mapping[str, Data]) -> Data:
        """Carry the step out; `data` holds what earlier steps returned. Returns what is journaled as done."""

    async def undo(self, data: Mapping[str, Data]) -> None:
        """Take back whatever of this step may have happened."""


class Coordinator:
    """One update at a time; a second request while one runs is refused, not queued."""

    def __init__(self, journal: Journal, steps: Mapping[str, Step], phases: Phases) -> None:
        self._journal = journal
        self._steps = steps
        self._phases = phases
        self._busy = ""
        self.error = ""

    @property
    def state(self) -> State:
        """How far the update has come."""
        return self._journal.standing().state

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
            self.error = ""
            try:
                for name in LAUNCH:
                    await self._do(name, first if name == "plan" else {})
            except (Exception, asyncio.CancelledError) as error:
                self.error = str(error) or "cancelled"
                leftovers = await asyncio.shield(self._undo_all())
                if leftovers and isinstance(error, MultirootError):
                    raise MultirootError(f"{error.message}; then {leftovers}", error.hint) from error
                raise
            return self.data

    async def release(self) -> None:
        """Take the launch back, step by step; raises MultirootError naming what could not be."""
        async with self.busy("releasing the new root"):
            leftovers = await self._undo_all()
            if leftovers:
                raise MultirootError(leftovers, "mend that and run `multiroot root release` again")

    async def recover(self, alive: bool) -> str:
        """After a restart: keep a joined root that is alive, else undo. Returns what it did, for the log."""
        standing = self._journal.standing()
        if not standing.begun:
            return "nothing was under way"
        if standing.state is State.JOINED and not standing.interrupted and alive:
            return "the new root is still joined"
        async with self.busy("recovering after a restart"):
            leftovers = await self._undo_all()
        return leftovers or f"took back an update that stood at {standing.state}"

    async def _do(self, name: str, data: Data) -> None:
        self._journal.write(name, Edge.BEGIN, **data)
        with self._phases.phase(name):
            result = await self._steps[name].do(self.data)
        self._journal.write(name, Edge.DONE, **result)

    async def _undo_all(self) -> str:
        """Undo all begun steps, newest first, going on past failures; returns what failed, "" if nothing."""
        failures = []
        for name in reversed(self._journal.standing().begun):
            self._journal.write(name, Edge.UNDO)
            try:
                with self._phases.phase(f"undo {name}"):
                    await self._steps[name].undo(self.data)
            except MultirootError as error:
                failures.append(f"undoing {name} failed: {error}")
                continue
            self._journal.write(name, Edge.UNDONE)
        return "; ".join(failures)
