# SPDX-License-Identifier: GPL-2.0-or-later
"""Moments of this root's start, on the TSC clock that all roots share.

The initramfs and init append "NAME SECONDS" lines (SECONDS as in /proc/uptime) to a file; the agent
adds its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiroot.clocks import Clock, boot_clock

MARKS_FILE = Path("/run/multiroot/marks")


@dataclass(frozen=True)
class Mark:
    """`at_ns` is on the TSC clock."""

    name: str
    at_ns: int


def parse_marks(text: str) -> list[tuple[str, float]]:
    """(name, seconds since the kernel started) of every well-formed line."""
    marks = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].replace(".", "", 1).isdecimal():
            marks.append((words[0], float(words[1])))
    return marks


class Marks:
    """The marks file seen on the TSC clock, and the agent's own marks."""

    def __init__(self, clock: Clock, path: Path = MARKS_FILE) -> None:
        self._clock = clock
        self._path = path
        self._own: list[Mark] = []

    def add(self, name: str) -> None:
        """Mark this moment."""
        self._own.append(Mark(name, self._clock()))

    def all(self) -> list[Mark]:
        """Every mark, oldest first."""
        offset = boot_clock(self._clock).offset()
        text = self._path.read_text() if self._path.exists() else ""
        early = [Mark(name, int(seconds * 1e9) + offset) for name, seconds in parse_marks(text)]
        return sorted([*early, *self._own], key=lambda mark: mark.at_ns)
