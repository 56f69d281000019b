# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guests of a bench do: words for the ticker guest (qemu-lab/guests/README.md); pure."""

from __future__ import annotations

import re

PERIOD_MS = 10  # from tick to tick, unless told otherwise
_ENOUGH_MS = 1200
_ENOUGH = 12


def words(*, period_ms: int = PERIOD_MS, dirty: int = 0) -> str:
    """For the guest's command line: time from tick to tick, and MiB/s of memory that it rewrites."""
    found = [f"ticker.period={period_ms}"] if period_ms != PERIOD_MS else []
    if dirty:
        found.append(f"ticker.dirty={dirty}")
    return " ".join(found)


def enough_ticks(append: str) -> int:
    """How many ticks are more than a second of the life of a guest that was told `append`."""
    told = re.search(r"\bticker\.period=(\d+)", append)
    return max(_ENOUGH, _ENOUGH_MS // int(told[1]) if told else _ENOUGH_MS // PERIOD_MS)
