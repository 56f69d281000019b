# SPDX-License-Identifier: GPL-2.0-or-later
"""States of an update, and what a journal says about where one stands. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
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

    BEGIN = "begin"
    DONE = "done"
    UNDO = "undo"
    UNDONE = "undone"


@dataclass(frozen=True)
class Entry:
    """One line of the journal; `data` is what the step needs for its undo or to go on after a restart."""

    step: str
    edge: Edge
    wall_ns: int
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """Where an update stands: its state, the steps whose effects may exist (oldest first), their data."""

    state: State
    begun: tuple[str, ...]
    data: dict[str, dict[str, Any]]

    @property
    def interrupted(self) -> bool:
        """True when a step or an undo was begun and its end never written."""
        last_done = STEPS.get(self.begun[-1]) if self.begun else State.IDLE
        return last_done != self.state


def replay(entries: Iterable[Entry]) -> Standing:
    """Fold a journal. A step counts as begun from BEGIN until UNDONE: its effects may exist in between."""
    begun: list[str] = []
    done: list[str] = []
    data: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.edge is Edge.BEGIN:
            begun = [*[step for step in begun if step != entry.step], entry.step]
        elif entry.edge is Edge.DONE:
            done = [*[step for step in done if step != entry.step], entry.step]
        elif entry.edge is Edge.UNDO:
            done = [step for step in done if step != entry.step]
        elif entry.edge is Edge.UNDONE:
            begun = [step for step in begun if step != entry.step]
            data.pop(entry.step, None)
        if entry.data:
            data[entry.step] = {**data.get(entry.step, {}), **entry.data}
    state = STEPS[done[-1]] if done else State.IDLE
    return Standing(state, tuple(begun), data)
