# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon the network hears where the guest runs."""

from __future__ import annotations

from multiroot.bench.results import network
from multiroot.bench.results.samples import Sample
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase


def handed(resumed: int, passed: int, frames: int | str) -> Sample:
    """With the ends of two phases; attributes come as text by gRPC."""
    return Sample("multi-root", 0, phases=(
        Phase(PhaseName.RESUME, "root 2", resumed - 10, 10, blackout=True),
        Phase(PhaseName.PASS_ON, "root 1", resumed + 1, passed - 1, attrs={"frames": frames}),
        Phase(PhaseName.ANNOUNCE, "root 2", resumed + 2, 98),
    ))  # fmt: skip


def test_moments_count_from_resume_on() -> None:
    found = network.rows([handed(1000, 7, "2"), handed(5000, 9, 1), Sample("multi-root", 1)])
    assert [(row.after.median, row.after.n, row.frames) for row in found] == [(8, 2, 3), (100, 2, None)]
    assert "sent on" in found[0].what


def test_who_does_not_tell_has_no_rows() -> None:
    assert network.rows([Sample("in-place", 0, {"blackout_ns": 5.0})]) == []
