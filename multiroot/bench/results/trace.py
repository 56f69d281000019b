# SPDX-License-Identifier: GPL-2.0-or-later
"""One sample from the inside: who owns which part of the blackout, and all phases as a Chrome trace. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from multiroot.phases import Phase


@dataclass(frozen=True)
class Part:
    """A part of a blackout, ns on the TSC clock, and whose time it is."""

    owner: str
    start_ns: int
    end_ns: int


def blackout_parts(phases: Sequence[Phase]) -> list[Part]:
    """The blackout cut into parts, each with one owner: together they are all of it.

    Where phases overlap, the later one owns the time: the earlier one is waited for by nobody any more. Where
    there is none, the time belongs to what lies between its neighbours (transport, scheduling).
    """
    inside = sorted((p for p in phases if p.blackout and p.end_ns is not None), key=lambda p: p.start_ns)
    edges = sorted({edge for p in inside for edge in (p.start_ns, p.end_ns or 0)})
    parts: list[Part] = []
    for start, end in pairwise(edges):
        owner = _owner(inside, start)
        if parts and parts[-1].owner == owner:
            parts[-1] = Part(owner, parts[-1].start_ns, end)
        else:
            parts.append(Part(owner, start, end))
    return parts


def owners(samples: Sequence[Sequence[Phase]]) -> dict[str, float]:
    """Median time, ns, that each owner has of the blackout in several samples; 0 where it has none.

    Roots are not told apart: which of them gives differs between samples.
    """
    each: list[Counter[str]] = []
    for phases in samples:
        taken: Counter[str] = Counter()
        for part in blackout_parts([replace(phase, side="") for phase in phases]):
            taken[part.owner] += part.end_ns - part.start_ns
        each.append(taken)
    names = dict.fromkeys(owner for taken in each for owner in taken)
    return {owner: statistics.median(taken[owner] for taken in each) for owner in names}


def _owner(inside: Sequence[Phase], at_ns: int) -> str:
    running = [p for p in inside if p.start_ns <= at_ns < (p.end_ns or 0)]
    if running:
        return _label(running[-1])
    before = max((p for p in inside if (p.end_ns or 0) <= at_ns), key=lambda p: p.end_ns or 0)
    after = min((p for p in inside if p.start_ns > at_ns), key=lambda p: p.start_ns)
    return f"from {before.name} to {after.name}"


def _label(phase: Phase) -> str:
    return f"{phase.side}: {phase.name}" if phase.side else phase.name


def chrome(phases: Sequence[Phase]) -> dict[str, Any]:
    """For chrome://tracing or ui.perfetto.dev: a row a side, and one for the blackout's owners.

    Format: "Trace Event Format", complete events; times in us from the first phase on.
    """
    ended = [phase for phase in phases if phase.duration_ns is not None]
    if not ended:
        return {"traceEvents": []}
    first = min(phase.start_ns for phase in ended)
    rows = {side: number for number, side in enumerate(dict.fromkeys(p.side for p in ended), 2)}
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": number, "args": {"name": name}}
        for name, number in (("blackout", 1), *rows.items())
    ]

    def add(row: int, name: str, start: int, end: int, **arguments: Any) -> None:
        times = {"ts": (start - first) / 1e3, "dur": (end - start) / 1e3}
        events.append({"name": name, "ph": "X", "pid": row, "tid": row, **times, "args": arguments})

    for part in blackout_parts(ended):
        add(1, part.owner, part.start_ns, part.end_ns)
    for phase in ended:
        add(rows[phase.side], phase.name, phase.start_ns, phase.end_ns or 0, **phase.attrs)
    return {"traceEvents": events, "displayTimeUnit": "ms"}
