# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's clocks beside the workstation's: what a root that took a machine over makes of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiroot.lab.execution import Result

TOLERANCE_S = 2.0
_READ = ("sh", "-c", "date +%s.%N; cut -d' ' -f1 /proc/uptime")


@dataclass(frozen=True)
class Clocks:
    """One reading, in seconds. `early` and `late` are the workstation's monotonic time before and after it,
    `uptime` the root's own; `wall` is how far the root's wall clock was ahead of what the workstation's
    showed before the reading.
    """

    early: float
    late: float
    uptime: float
    wall: float

    def drift(self, later: Clocks) -> float:
        """Seconds that the root's monotonic clock lost or won until `later`, less what reading explains."""
        return outside(later.uptime - self.uptime, later.early - self.late, later.late - self.early)

    def wall_drift(self, later: Clocks) -> float:
        """Seconds that wall clocks lost or won until `later`, less what reading explains. Where the first
        root began does not count: it has whole seconds from an RTC, and a slow one loses ticks until it
        counts by the TSC.
        """
        change = later.wall - self.wall
        return outside(0.0, change - (later.late - later.early), change + (self.late - self.early))


def outside(value: float, low: float, high: float) -> float:
    """How far a value is from a range; 0 in it."""
    return max(0.0, low - value, value - high)


def read(run: Callable[[Sequence[str]], Result]) -> Clocks:
    """Read the clocks of the root in which `run` runs commands."""
    early, wall = time.monotonic(), time.time()
    said = run(_READ).stdout.split()
    late = time.monotonic()
    return Clocks(early, late, float(said[1]), float(said[0]) - wall)
