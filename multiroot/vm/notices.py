# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened to a VM that nobody here asked for: its guest rebooted or panicked, a watchdog fired."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST = 32  # are kept, the newest
PANICKED = "the guest's kernel panicked"
# mm/oom_kill.c. The name is a process's own, and may have anything in it.
_KILLED = re.compile(r"ut of memory[^:]*: Killed process (\d+) \((.{1,15})\)")
_GROUP = "Memory cgroup o"
_PANIC = "Kernel panic - not syncing"
PANIC_SAID = f"{PANICKED}, its console says"
_SAME_NS = 10_000_000_000  # the device is told after the console, which is a slow one


@dataclass(frozen=True)
class Notice:
    """One thing that happened; `at_ns` on the machine-wide clock."""

    at_ns: int
    what: str


def newest(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Those that are kept, oldest first."""
    return tuple(notices)[-MOST:]


def said(at_ns: int, line: str) -> Notice | None:
    """What there is to tell of a line on a guest's console.

    A program of the guest can print such a line, too, so it is told as what the console says.
    """
    if killed := _KILLED.search(line):
        whose = "of a control group " if _GROUP in line else ""
        process = f"process {killed[1]} ({killed[2]}) was killed"
        return Notice(at_ns, f"memory {whose}ran out in the guest, its console says: {process}")
    return Notice(at_ns, PANIC_SAID) if _PANIC in line else None


def all_of(heard: Iterable[Notice], said_too: Iterable[Notice]) -> tuple[Notice, ...]:
    """Those that are kept of both, oldest first. A panic that a device has told is not told again."""
    heard = tuple(heard)
    panics = [each.at_ns for each in heard if each.what == PANICKED]
    more = (
        each
        for each in said_too
        if each.what != PANIC_SAID or not any(abs(each.at_ns - at_ns) < _SAME_NS for at_ns in panics)
    )
    return newest(sorted((*heard, *more), key=lambda each: each.at_ns))
