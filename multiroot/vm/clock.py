# SPDX-License-Identifier: GPL-2.0-or-later
"""Times that others stamped, on the machine-wide TSC clock.

QEMU stamps events with the wall clock, the console process stamps bytes with CLOCK_MONOTONIC_RAW. The two
roots' wall clocks differ, so both are mapped through a pair of readings taken in the root that stamped
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
_TRIES = 4


class Mapped:
    """Maps ns of one of this root's clocks to ns of `clock` by an offset measured when asked.

    Right to within the two clocks' drift since the stamp, a few parts in 10^8 for clocks derived from the
    TSC.
    """

    def __init__(self, clock: Clock, other: Clock) -> None:
        self._clock = clock
        self._other = other

    def offset(self) -> int:
        """clock - other in ns: of several bracketed readings the one with the tightest bracket."""
        best: tuple[int, int] | None = None
        for _ in range(_TRIES):
            before = self._clock()
            other = self._other()
            after = self._clock()
            candidate = (after - before, (before + after) // 2 - other)
            best = min(best, candidate) if best else candidate
        assert best is not None
        return best[1]

    def __call__(self, stamp_ns: int) -> int:
        """`stamp_ns` of the other clock on ours."""
        return stamp_ns + self.offset()


def wall_clock(clock: Clock) -> Mapped:
    """For stamps of CLOCK_REALTIME."""
    return Mapped(clock, time.time_ns)


def raw_clock(clock: Clock) -> Mapped:
    """For stamps of CLOCK_MONOTONIC_RAW."""
    return Mapped(clock, lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))
