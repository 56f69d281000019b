# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's messages say of how it is doing. Pure: lines in, verdict out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from multiroot.verdict.signs import Kind, kind_of


class Health(IntEnum):
    """How a kernel is doing, the worse the higher."""

    WELL = 0
    SLOW = 1  # it says that something of it does not get on; it may, yet
    BROKEN = 2  # a part of it has crashed: it may run on, but nobody should rely on it
    DEAD = 3  # it has panicked


@dataclass(frozen=True)
class Verdict:
    """`line` is the message that says so, "" while all is well."""

    health: Health = Health.WELL
    line: str = ""


WELL = Verdict()

# What is not here leaves a kernel well: it goes on as before, or a debug kernel has found what was always
# there.
_HEALTH = {
    Kind.PANIC: Health.DEAD,
    Kind.OOPS: Health.BROKEN,
    Kind.BUG: Health.BROKEN,
    Kind.KASAN: Health.BROKEN,
    Kind.KFENCE: Health.BROKEN,
    Kind.SOFT_LOCKUP: Health.SLOW,
    Kind.HARD_LOCKUP: Health.SLOW,
    Kind.WORKQUEUE: Health.SLOW,
    Kind.RCU: Health.SLOW,
    Kind.HUNG_TASK: Health.SLOW,
}


def judge(lines: Iterable[str], so_far: Verdict = WELL) -> Verdict:
    """The worst that was said in messages, `so_far` included; of the equally bad the first."""
    worst = so_far
    for line in lines:
        kind = kind_of(line)
        health = _HEALTH.get(kind, Health.WELL) if kind else Health.WELL
        if health > worst.health:
            worst = Verdict(health, line)
    return worst
