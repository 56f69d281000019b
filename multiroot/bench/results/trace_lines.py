# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines of a kernel's trace file. Pure.

Kernel: Documentation/trace/ftrace.rst; the trace clock is the TSC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# System calls have no colon after their name: "sys_ioctl(fd: 9, cmd: ae00, arg: 0)", "sys_ioctl -> 0x0".
_LINE = re.compile(
    r"^.*-(?P<task>\d+)\s+\[\d+\]\s+\S+\s+(?P<at>\d+): (?P<event>\w+)(?:: |(?=\()|(?= ->))(?P<rest>.*)$"
)


@dataclass(frozen=True)
class Event:
    """`at_ns` on the machine-wide clock; `task` is the thread that was running."""

    at_ns: int
    task: int
    name: str
    rest: str


def read(text: str, khz: int) -> list[Event]:
    """All events, the earliest first."""
    found = [
        Event(int(line["at"]) * 1_000_000 // khz, int(line["task"]), line["event"], line["rest"])
        for line in map(_LINE.match, text.splitlines())
        if line
    ]
    return sorted(found, key=lambda event: event.at_ns)
