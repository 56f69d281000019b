# SPDX-License-Identifier: GPL-2.0-or-later
"""Who owns the guest's gap: what its virtual CPU did on either side of a blackout, from its last tick on and
until its first, and what it usually does for one tick. Pure.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from multiroot import arch
from multiroot.bench.results import vcpu_events
from multiroot.bench.results.samples import Sample
from multiroot.phases import Phase

AFTER = 5  # so many ticks follow the first, which show how soon the guest's pace is the usual one
USUAL = 10  # of so many ticks the usual one is the average
# What takes less than this of every tick, or less than this share, is not told apart.
SMALL_NS, SMALL = 50_000, 0.02
OTHER = "all else"


@dataclass(frozen=True)
class Stretch:
    """A time that is looked into, ns on the machine-wide clock; `ticks` of the guest share it.

    `giver`: its virtual CPU is the one in the root that gives.
    """

    name: str
    start_ns: int
    end_ns: int
    ticks: int = 1
    giver: bool = False


BEFORE = "last tick to STOP"
FIRST = "RESUME to a tick"
NEXT = "each of the next"
ONE = "a usual tick"
NAMES = (BEFORE, FIRST, NEXT, ONE)


def stretches(ticks_ns: Sequence[int], stopped_ns: int, resumed_ns: int) -> list[Stretch]:
    """What is looked into; nothing if the guest has not ticked often enough."""
    before = [at for at in ticks_ns if at <= resumed_ns]
    after = [at for at in ticks_ns if at > resumed_ns]
    if not before or len(after) < 1 + AFTER + 1 + USUAL:
        return []
    return [
        Stretch(BEFORE, min(before[-1], stopped_ns), stopped_ns, giver=True),
        Stretch(FIRST, resumed_ns, after[0]),
        Stretch(NEXT, after[0], after[AFTER], AFTER),
        Stretch(ONE, after[-1 - USUAL], after[-1], USUAL),
    ]


def told(stretch: Stretch, trace: str, root: int, khz: int) -> list[Phase]:
    """What the virtual CPU did in that time by a root's trace, as phases that `rows` understands."""
    found = vcpu_events.parse(trace, khz, stretch.start_ns, stretch.end_ns, arch.current().exits)
    return [
        Phase(part.doing, f"{vcpu_events.SIDE}, root {root}", part.start_ns, part.length,
              attrs={"stretch": stretch.name, "ticks": stretch.ticks, "exits": part.exits})
        for part in found
    ]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """ns that one owner has of each of the stretches in `NAMES`, for one tick, and by how many exits."""

    owner: str
    ns: tuple[float, ...]
    exits: tuple[float, ...] = (0.0,) * len(NAMES)


def rows(samples: Sequence[Sample]) -> list[Row]:
    """Means over all samples that have a trace of the virtual CPU; the owner of most of the gap first.

    Means, for they add up to the whole.
    """
    each = [shares for sample in samples if (shares := _shares(sample.phases))]
    if not each:
        return []
    owners = {owner for shares in each for _, owner in shares}
    found = [
        Row(
            owner,
            tuple(statistics.fmean(shares[name, owner].ns for shares in each) for name in NAMES),
            tuple(statistics.fmean(shares[name, owner].exits for shares in each) for name in NAMES),
        )
        for owner in owners
    ]
    least = [max(SMALL_NS, SMALL * ns) for ns in _sum("all", found).ns]
    shown = [row for row in found if any(ns >= few for ns, few in zip(row.ns, least, strict=True))]
    shown.sort(key=lambda row: -row.ns[0] - row.ns[1])
    small = [row for row in found if row not in shown]
    return [*shown, *([_sum(OTHER, small)] if small else []), _sum("all", found)]


@dataclass
class _Share:
    """Of one owner in one stretch, for one tick."""

    ns: float = 0.0
    exits: float = 0.0


def _shares(phases: Sequence[Phase]) -> defaultdict[tuple[str, str], _Share]:
    """By stretch and owner."""
    taken: defaultdict[tuple[str, str], _Share] = defaultdict(_Share)
    for phase in phases:
        if "stretch" in phase.attrs:
            ticks = int(phase.attrs["ticks"])
            share = taken[str(phase.attrs["stretch"]), phase.name]
            share.ns += (phase.duration_ns or 0) // ticks
            # Samples of earlier versions do not tell.
            share.exits += int(phase.attrs.get("exits", 0)) / ticks
    return taken


def _sum(owner: str, rows: Sequence[Row]) -> Row:
    def total(columns: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(sum(column) for column in zip(*columns, strict=True))

    return Row(owner, total([row.ns for row in rows]), total([row.exits for row in rows]))
