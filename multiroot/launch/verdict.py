# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's messages say of how it is doing. Pure: lines in, verdict out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


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

_SIGNS = (
    (Health.DEAD, re.compile(r"^Kernel panic - not syncing")),
    (
        Health.BROKEN,
        re.compile(
            r"^(BUG: (?!soft lockup|workqueue lockup)|kernel BUG at |Oops\b|Oops: |general protection fault"
            r"|Unable to handle kernel |Internal error: |double fault|PANIC: )"
        ),
    ),
    (
        Health.SLOW,
        re.compile(
            r"soft lockup|hard LOCKUP|workqueue lockup|rcu: INFO: .* (detected stalls|self-detected stall)"
            r"|blocked for more than \d+ seconds|starved for \d+ jiffies"
        ),
    ),
)


def judge(lines: Iterable[str], so_far: Verdict = WELL) -> Verdict:
    """The worst that was said, `so_far` included; of the equally bad the first."""
    worst = so_far
    for line in lines:
        health = next((health for health, sign in _SIGNS if sign.search(line)), Health.WELL)
        if health > worst.health:
            worst = Verdict(health, line)
    return worst
