# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened to a VM that nobody here asked for: its guest rebooted or panicked, a watchdog fired."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MOST = 32  # are kept, the newest


@dataclass(frozen=True)
class Notice:
    """One thing that happened; `at_ns` on the machine-wide clock."""

    at_ns: int
    what: str


def newest(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Those that are kept, oldest first."""
    return tuple(notices)[-MOST:]
