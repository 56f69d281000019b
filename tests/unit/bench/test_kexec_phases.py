# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of the ten phases of kexec + PMEM keeps their order, and says where ours lies beside each."""

from __future__ import annotations

from itertools import pairwise

from multiroot.bench.kexec_pmem import PHASES, ten_phases
from multiroot.bench.results.kexec_phases import ABSENT, INSIDE, OVERLAPPED, table
from multiroot.bench.results.samples import Header, Run, Sample
from multiroot.phases import Phase

MOMENTS = (
    "begin", "stopped", "saved", "ended", "left", "starting",
    "initramfs", "found", "qemu", "loaded", "resumed",
)  # fmt: skip
HEADER = Header("handoff", "2026-01-01T00:00:00Z", "abc", {"cpus": 2}, {}, 0.1, 1, {})


def test_the_ten_phases_follow_one_another() -> None:
    moments = {name: 10 * number**2 for number, name in enumerate(MOMENTS)}
    phases = ten_phases(moments)
    assert [phase.name for phase in phases] == [name for name, _, _ in PHASES]
    assert all(one.end_ns == two.start_ns for one, two in pairwise(phases))
    assert (phases[0].start_ns, phases[-1].end_ns) == (moments["begin"], moments["resumed"])
    assert [phase.name for phase in phases if not phase.blackout] == ["VM suspend"]


def test_ours_beside_theirs() -> None:
    theirs = ten_phases({name: 1000 * number for number, name in enumerate(MOMENTS)})
    ours = (
        Phase("save device state", "root 1", 0, 11, blackout=True),
        Phase("commit", "root 2", 0, 1, blackout=True),
        Phase("resume", "root 2", 0, 8, blackout=True),
        Phase("end old QEMU", "root 1", 0, 100),
    )
    samples = (
        Sample("kexec", 0, {"total_ns": 10_000}, theirs),
        Sample("ours", 0, {"blackout_ns": 60}, ours),
        Sample("launch", 0, {}, (Phase("kernel startup", "root 2", 0, 700),)),
    )
    rows = {row.phase: row for row in table(Run(HEADER, samples), "kexec", "ours", "launch")}
    assert [*rows][:10] == [name for name, _, _ in PHASES]
    assert (rows["VM save"].theirs, rows["VM save"].ours, rows["VM save"].where) == (1000, 11, INSIDE)
    assert (rows["VM resume"].ours, rows["VM suspend"].ours) == (9, None)
    assert (rows["kernel startup"].ours, rows["kernel startup"].where) == (700, OVERLAPPED)
    assert (rows["userland shutdown"].ours, rows["userland shutdown"].where) == (None, ABSENT)
    assert (rows["total"].theirs, rows["total"].ours) == (10_000, 60)
