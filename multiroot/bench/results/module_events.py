# SPDX-License-Identifier: GPL-2.0-or-later
"""Events that the tracepoints of multiroot.ko recorded, as marks beside a handoff's phases. Pure.

Kernel: Documentation/trace/ftrace.rst, trace_clock; csrc/kmod/core/trace.h.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from multiroot.phases import Phase

MODULE = "multiroot.ko"
# Events this near to the blackout are shown. Others are left out: agents use the same link all the time.
MARGIN_NS = 2_000_000

_LINE = re.compile(r"\s(\d+): (\w+): root=(\d+) value=(\w+)$")


def parse(text: str, root: int, khz: int) -> list[Phase]:
    """The events in a root's trace, as phases without length; ns on the machine-wide clock."""
    side = f"{MODULE}, root {root}"
    marks = []
    for line in text.splitlines():
        found = _LINE.search(line)
        if found:
            mark = Phase(found[2], side, int(found[1]) * 1_000_000 // khz, 0)
            mark.attrs.update(peer=int(found[3]), value=int(found[4], 0))
            marks.append(mark)
    return marks


def near(marks: Sequence[Phase], phases: Sequence[Phase]) -> list[Phase]:
    """The marks in the blackout among `phases`, or within MARGIN_NS of it."""
    inside = [phase for phase in phases if phase.blackout and phase.end_ns is not None]
    if not inside:
        return []
    first = min(phase.start_ns for phase in inside) - MARGIN_NS
    last = max(phase.end_ns or 0 for phase in inside) + MARGIN_NS
    return [mark for mark in marks if first <= mark.start_ns <= last]
