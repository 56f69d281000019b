# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way anything is timed: `with phases.phase("load"):`.

Each phase is an event at its start and one at its end; whoever subscribes (terminal progress, log, journal,
the demo's table, traces, the bench) gets the same events, so nothing is timed twice or printed by hand.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

Clock = Callable[[], int]
AttrValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Phase:
    """One timed step. Times are ns on the recorder's clock; `duration_ns` is None while it runs."""

    name: str
    side: str
    start_ns: int
    duration_ns: int | None = None
    blackout: bool = False
    ok: bool = True
    attrs: dict[str, AttrValue] = field(default_factory=dict)

    @property
    def end_ns(self) -> int | None:
        return None if self.duration_ns is None else self.start_ns + self.duration_ns


Subscriber = Callable[[Phase], None]


class Phases:
    """Records phases of one side ("old root", "new root", "workstation") on one clock.

    `clock` returns ns; agents pass the TSC-based clock of `multiroot.arena.atomics` so that the phases of
    two roots line up, everyone else uses the default monotonic clock.
    """

    def __init__(self, side: str, clock: Clock = time.monotonic_ns, keep: int | None = None) -> None:
        """`keep` is how many finished phases are kept, the newest; None keeps all."""
        self.side = side
        self.clock = clock
        self.finished: deque[Phase] = deque(maxlen=keep)
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` at every start and end; returns the function that ends the subscription."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    @contextmanager
    def phase(
        self, name: str, *, blackout: bool = False, **attrs: AttrValue
    ) -> Iterator[dict[str, AttrValue]]:
        """Time the body; the yielded dict takes attributes that are known only later."""
        started = Phase(name, self.side, self.clock(), blackout=blackout, attrs=attrs)
        self.publish(started)
        ok = False
        try:
            yield attrs
            ok = True
        finally:
            duration = self.clock() - started.start_ns
            self.add(replace(started, duration_ns=duration, ok=ok))

    def add(self, phase: Phase) -> None:
        """Take in a finished phase, be it ours or one reported by the other root."""
        self.finished.append(phase)
        self.publish(phase)

    def publish(self, phase: Phase) -> None:
        """Show subscribers a phase that is recorded elsewhere."""
        for subscriber in tuple(self._subscribers):
            subscriber(phase)
