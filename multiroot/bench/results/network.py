# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon the network hears where the guest runs: moments after its RESUME. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiroot.bench.results.samples import Sample
from multiroot.bench.results.summary import Summary, summarise
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase

# What has happened when a phase ends.
_ENDS = {
    PhaseName.TELL_BRIDGE: "the taker's bridge knows the port, the giver has been told",
    PhaseName.PASS_ON: "the giver has sent on what waited for the guest",
    PhaseName.ANNOUNCE: "the taker's VMM has sent the first announcement",
}


@dataclass(frozen=True)
class Row:
    """ns from RESUME on; `frames` is how many waited, in all of these handoffs, None where none can."""

    what: str
    after: Summary
    frames: int | None


def rows(samples: Sequence[Sample]) -> list[Row]:
    """One for each moment that these samples have, in the order of their medians."""
    found = []
    for name, what in _ENDS.items():
        seen = [
            (phase, (phase.end_ns or 0) - resumed)
            for sample in samples
            if (resumed := _resumed(sample.phases))
            for phase in sample.phases
            if phase.name == name and phase.end_ns
        ]
        if seen:
            frames = [int(phase.attrs["frames"]) for phase, _ in seen if "frames" in phase.attrs]
            found.append(Row(what, summarise([after for _, after in seen]), sum(frames) if frames else None))
    return sorted(found, key=lambda row: row.after.median)


def _resumed(phases: Sequence[Phase]) -> int:
    """When the guest went on, 0 if it never did."""
    return max((phase.end_ns or 0 for phase in phases if phase.blackout), default=0)
