# SPDX-License-Identifier: GPL-2.0-or-later
"""States of an update, and what a journal says about where one stands. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import reduce
from typing import Any

from multiroot.phase_names import PhaseName


class State(StrEnum):
    """How far an update has come; each is reached by one step and left backwards by that step's undo."""

    IDLE = "idle"
    PLANNED = "planned"
    CARVED = "carved"
    OFFLINED = "offlined"
    LOADED = "loaded"
    STARTED = "started"
    JOINED = "joined"
    HANDED_OVER = "handed-over"
    COMMITTED = "committed"
    RETIRING = "retiring"


# The state each step of a launch leads to, in order.
LAUNCH: dict[str, State] = {
    PhaseName.PLAN: State.PLANNED,
    PhaseName.CARVE: State.CARVED,
    PhaseName.OFFLINE: State.OFFLINED,
    PhaseName.LOAD: State.LOADED,
    PhaseName.START: State.STARTED,
    PhaseName.JOIN: State.JOINED,
}

# What follows in an update. Up to "commit" it can be taken back; "retire" is the old root's last step.
UPDATE: dict[str, State] = {
    PhaseName.HANDOVER: State.HANDED_OVER,
    PhaseName.COMMIT: State.COMMITTED,
    PhaseName.RETIRE: State.RETIRING,
}
STEPS: dict[str, State] = {**LAUNCH, **UPDATE}

# The steps during and after which a new root may run.
WITH_NEW_ROOT = (PhaseName.START, PhaseName.JOIN, *UPDATE)


class Edge(StrEnum):
    """What a journal entry says of its step."""

    WANTED = "wanted"  # an update is to get as far as this step
    BEGIN = "begin"
    DONE = "done"
    UNDO = "undo"
    UNDONE = "undone"
    FAILED = "failed"  # the step or its undo, and why


@dataclass(frozen=True)
class Entry:
    """One line of the journal; `data` is what the step needs for its undo or to go on after a restart."""

    step: str
    edge: Edge
    wall_ns: int
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepTime:
    """The last that happened to a step; wall clock in ns, `end_ns` 0 until it has ended."""

    step: str
    edge: Edge
    begin_ns: int
    end_ns: int = 0


@dataclass(frozen=True)
class Standing:
    """Where an update stands.

    `begun` are the steps whose effects may exist, `done` those that are done (oldest first); `data` is what
    they have left. `wanted` is the step that an update is to get to and what it was told, None if none runs.
    `undoing`: the last thing done was to take a step back; `forced`: even if that loses VMs. `error` is why
    the last step failed, `lost` names the VMs that were lost.
    """

    begun: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    data: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    wanted: tuple[str, dict[str, Any]] | None = None
    undoing: bool = False
    forced: bool = False
    error: str = ""
    lost: tuple[str, ...] = ()
    times: tuple[StepTime, ...] = ()

    @property
    def state(self) -> State:
        """The state that the newest step which is done has led to."""
        return STEPS[self.done[-1]] if self.done else State.IDLE

    @property
    def interrupted(self) -> bool:
        """True when a step or an undo was begun and its end never written."""
        last_done = STEPS.get(self.begun[-1]) if self.begun else State.IDLE
        return last_done != self.state


def replay(entries: Iterable[Entry]) -> Standing:
    """Fold a journal. A step counts as begun from BEGIN until UNDONE: its effects may exist in between."""
    return reduce(advance, entries, Standing())


def advance(before: Standing, entry: Entry) -> Standing:
    """Where an update stands when one more entry is written."""
    step = entry.step
    match entry.edge:
        case Edge.WANTED:
            return replace(before, wanted=(step, entry.data), error="")
        case Edge.FAILED:
            after = replace(before, error=str(entry.data.get("error", "")))
        case Edge.BEGIN:
            begun = (*_without(before.begun, step), step)
            after = replace(before, begun=begun, undoing=False, forced=False, error="")
        case Edge.DONE:
            after = replace(before, done=(*_without(before.done, step), step))
        case Edge.UNDO:
            back = step not in (PhaseName.COMMIT, PhaseName.RETIRE)  # these are undone alone
            forced = bool(entry.data.get("force"))
            after = replace(before, done=_without(before.done, step), undoing=back, forced=forced)
        case Edge.UNDONE:
            data = {name: left for name, left in before.data.items() if name != step}
            lost = (*before.lost, *map(str, entry.data.get("lost", ())))
            after = replace(before, begun=_without(before.begun, step), data=data, lost=lost)
    if entry.data and entry.edge in (Edge.BEGIN, Edge.DONE):
        after = replace(after, data={**after.data, step: {**after.data.get(step, {}), **entry.data}})
    return replace(after, times=_timed(before.times, entry))


def _without(steps: tuple[str, ...], step: str) -> tuple[str, ...]:
    return tuple(each for each in steps if each != step)


def _timed(times: tuple[StepTime, ...], entry: Entry) -> tuple[StepTime, ...]:
    mine = next((time for time in times if time.step == entry.step), None)
    others = [time for time in times if time.step != entry.step]
    if entry.edge in (Edge.BEGIN, Edge.UNDO) or mine is None:
        return (*others, StepTime(entry.step, entry.edge, entry.wall_ns))
    return (*others, replace(mine, edge=entry.edge, end_ns=entry.wall_ns))
