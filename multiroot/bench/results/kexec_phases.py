# SPDX-License-Identifier: GPL-2.0-or-later
"""The ten phases of kexec + PMEM (the LPC 2021 method), each beside multi-root's in its place.

Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.bench.results.samples import Run
from multiroot.bench.results.summary import quantile
from multiroot.phase_names import KexecPhase, PhaseName
from multiroot.phases import Phase

INSIDE, OVERLAPPED, ABSENT = "inside the blackout", "overlapped", "does not happen"
PART_OF_SAVING = "part of saving"

# Their phase, ours in its place, and where ours lies.
ROWS = (
    (KexecPhase.VM_SUSPEND, (PhaseName.SAVE_DEVICE_STATE,), PART_OF_SAVING),
    (KexecPhase.VM_SAVE, (PhaseName.SAVE_DEVICE_STATE,), INSIDE),
    (KexecPhase.QEMU_SHUTDOWN, (PhaseName.END_OLD_QEMU,), OVERLAPPED),
    (KexecPhase.USERLAND_SHUTDOWN, (), ABSENT),
    (KexecPhase.KERNEL_SHUTDOWN, (), ABSENT),
    (KexecPhase.KERNEL_STARTUP, (PhaseName.KERNEL_STARTUP,), OVERLAPPED),
    (KexecPhase.USERLAND_STARTUP, (PhaseName.USERLAND_STARTUP,), OVERLAPPED),
    (KexecPhase.QEMU_STARTUP, (PhaseName.START_WAITING_QEMU,), OVERLAPPED),
    (KexecPhase.VM_RESTORE, (PhaseName.ON_THE_WAY, PhaseName.LOAD_DEVICE_STATE), INSIDE),
    (KexecPhase.VM_RESUME, (PhaseName.COMMIT, PhaseName.RESUME), INSIDE),
)


@dataclass(frozen=True)
class Row:
    """Medians in ns; None where nothing was measured."""

    phase: str
    theirs: float | None
    ours: float | None
    where: str


def table(run: Run, theirs: str, ours: str, launch: str) -> list[Row]:
    """The ten phases in their order, then a total: of theirs everything, of ours the blackout."""
    other = _medians(run, theirs)
    own = {**_medians(run, launch), **_medians(run, ours)}
    rows = []
    for phase, names, where in ROWS:
        parts = [own[name] for name in names if name in own]
        counted = bool(parts) and where != PART_OF_SAVING
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
