# SPDX-License-Identifier: GPL-2.0-or-later
"""The timed steps that run now."""

from __future__ import annotations

from collections.abc import Callable

from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.watch.facts import PhaseFacts

MOST = 64  # of one that has begun its end may never be told


class PhaseLog:
    """Listens to a root's phases, for the life of its agent."""

    def __init__(self, phases: Phases, changed: Callable[[], None]) -> None:
        """`changed` is called when a step begins or ends."""
        self._changed = changed
        self._running: dict[str, PhaseFacts] = {}
        self.adopted: set[int] = set()  # hardware ids of CPUs that were taken over
        phases.subscribe(self._hear)

    def running(self) -> dict[str, PhaseFacts]:
        """By `SIDE/NAME/START`, oldest first."""
        return dict(self._running)

    def _hear(self, phase: Phase) -> None:
        key = f"{phase.side}/{phase.name}/{phase.start_ns}"
        if phase.duration_ns is None:
            if len(self._running) == MOST:
                del self._running[next(iter(self._running))]
            vm = str(phase.attrs.get("vm", ""))
            self._running[key] = PhaseFacts(phase.name, phase.side, phase.start_ns, vm)
        else:
            self._running.pop(key, None)
            if phase.name == PhaseName.ADOPT_CPU and phase.ok and "hardware_id" in phase.attrs:
                self.adopted.add(int(phase.attrs["hardware_id"]))
        self._changed()
