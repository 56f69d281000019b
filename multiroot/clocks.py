# SPDX-License-Identifier: GPL-2.0-or-later
"""Mapping times between clocks.

Roots and the workstation compare moments on one clock, the one made from the TSC. QEMU stamps events with the
wall clock, the console keeper stamps bytes with CLOCK_MONOTONIC_RAW, a starting kernel counts from its boot.
Such stamps are mapped by the difference of the two clocks, which is measured where both can be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], int]
_TRIES = 4
_SETTINGS = 10
_RIGHT_NS = 1_000_000


@dataclass(frozen=True)
class Difference:
    """How far one clock is ahead of another, and how wrong that may be; ns."""

    ns: int
    error_ns: int


def difference(clock: Clock, other: Clock, tries: int = _TRIES) -> Difference:
    """`clock` minus `other`.

    Reads `clock` between two readings of `other`, `tries` times, and uses the try in which these two were
    closest together. `clock` may be far away: what it takes to ask it is part of the error.
    """
    best: Difference | None = None
    for _ in range(tries):
        before = other()
        reading = clock()
        after = other()
        tried = Difference(reading - (before + after) // 2, (after - before) // 2)
        if best is None or tried.error_ns < best.error_ns:
            best = tried
    assert best is not None
    return best


class Mapped:
    """Maps ns of one of this root's clocks to ns of `clock` by a difference measured when asked.

    The result is right to within the two clocks' drift since the stamp, a few parts in 10^8 for clocks
    derived from the TSC.
    """

    def __init__(self, clock: Clock, other: Clock) -> None:
        self._clock = clock
        self._other = other

    def offset(self) -> int:
        """`clock` minus the other one, ns."""
        return difference(self._clock, self._other).ns

    def __call__(self, stamp_ns: int) -> int:
        """`stamp_ns` of the other clock as a time of `clock`."""
        return stamp_ns + self.offset()


def wall_clock(clock: Clock) -> Mapped:
    """For stamps of CLOCK_REALTIME."""
    return Mapped(clock, time.time_ns)


def raw_clock(clock: Clock) -> Mapped:
    """For stamps of CLOCK_MONOTONIC_RAW."""
    return Mapped(clock, lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))


def boot_clock(clock: Clock) -> Mapped:
    """For stamps of CLOCK_BOOTTIME."""
    return Mapped(clock, lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def set_wall_clock(clock: Clock, offset_ns: int) -> None:
    """Set CLOCK_REALTIME to `offset_ns` after `clock`. Raises OSError.

    Who sets it may lose the CPU between reading the one and setting the other, and the clock would stay wrong
    by that. So it is looked at, and set again until it is right.
    """
    for _ in range(_SETTINGS):
        time.clock_settime_ns(time.CLOCK_REALTIME, clock() + offset_ns)
        if abs(wall_clock(clock).offset() + offset_ns) < _RIGHT_NS:
            return
