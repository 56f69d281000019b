# SPDX-License-Identifier: GPL-2.0-or-later
"""The seed's ten phases (LPC 2021), with what we have in place of each beside them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.bench.results.samples import Run
from multiroot.bench.results.summary import quantile
from multiroot.phases import Phase

INSIDE, OVERLAPPED, ABSENT = "inside the blackout", "overlapped", "does not happen"

# The seed's phase, ours in its place, and where ours lies.
ROWS = (
    ("VM suspend", ("save device state",), "part of saving"),
    ("VM save", ("save device state",), INSIDE),
    ("QEMU shutdown", ("end old QEMU",), OVERLAPPED),
    ("userland shutdown", (), ABSENT),
    ("kernel shutdown", (), ABSENT),
    ("kernel startup", ("kernel startup",), OVERLAPPED),
    ("userland startup", ("userland startup",), OVERLAPPED),
    ("QEMU startup", ("start waiting QEMU",), OVERLAPPED),
    ("VM restore", ("load device state",), INSIDE),
    ("VM resume", ("commit", "resume"), INSIDE),
)


@dataclass(frozen=True)
class Row:
    """Medians in ns; None where nothing was measured."""

    phase: str
    theirs: float | None
    ours: float | None
    where: str


def table(run: Run, theirs: str, ours: str, launch: str) -> list[Row]:
    """In the seed's order, then a total: all of theirs, of ours the blackout."""
    other = _medians(run, theirs)
    own = {**_medians(run, launch), **_medians(run, ours)}
    rows = []
    for phase, names, where in ROWS:
        parts = [own[name] for name in names if name in own]
        counted = bool(parts) and where != "part of saving"
        rows.append(Row(phase, other.get(phase), sum(parts) if counted else None, where))
    blackouts = run.values(ours, "blackout_ns")
    total = run.values(theirs, "total_ns")
    rows.append(
        Row(
            "total",
            quantile(total, 0.5) if total else None,
            quantile(blackouts, 0.5) if blackouts else None,
            "the blackout alone",
        )
    )
    return rows


def _medians(run: Run, contender: str) -> dict[str, float]:
    phases: dict[str, list[Phase]] = {}
    for sample in run.samples:
        if sample.contender == contender:
            for phase in sample.phases:
                phases.setdefault(phase.name, []).append(phase)
    return {name: quantile([p.duration_ns or 0 for p in found], 0.5) for name, found in phases.items()}
