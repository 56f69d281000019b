# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests' ticks as several roots see them, joined: also the one whose line began in one root and ended in
the next. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from multiroot.vm.ticks import Stretch, Tick, gap_around, parse_line
from multiroot.watch.events import Point
from multiroot.watch.facts import FrameFacts, HandoffFacts, Stage, TickFacts

SETTLE_NS = 1_200_000_000  # ticks so long after a handoff tell of other things


class TicksSeen:
    """Of all guests; it keeps the newest tick and account of frames of each, and what there is of a line that
    was cut.
    """

    def __init__(self) -> None:
        self.newest: dict[str, TickFacts] = {}
        self.frames: dict[str, FrameFacts] = {}
        self._known: dict[tuple[str, int], Tick] = {}  # the newest by each root
        self._tails: dict[str, dict[int, bytes]] = {}
        self._heads: dict[str, tuple[int, bytes, int, int]] = {}  # root, head, its time, the next counter

    def since(self) -> dict[str, int]:
        """When the newest tick of each guest was seen."""
        return {vm: newest.at_ns for vm, newest in self.newest.items()}

    def take(self, vm: str, root: int, stretch: Stretch) -> list[Point]:
        """The points in what root number `root` has seen of a guest, oldest first."""
        if stretch.ticks:
            self._known[vm, root] = stretch.ticks[-1]
        points: list[Point] = [(tick.seen_ns, tick.counter, root) for tick in stretch.ticks]
        self._tails.setdefault(vm, {})[root] = stretch.tail
        if stretch.head_ns is not None and stretch.ticks:
            self._heads[vm] = (root, stretch.head, stretch.head_ns, stretch.ticks[0].counter)
        if joint := self._joint(vm):
            points.insert(0, (joint.seen_ns, joint.counter, root))
        if stretch.ticks:
            last = stretch.ticks[-1]
            if vm not in self.newest or self.newest[vm].at_ns < last.seen_ns:
                self.newest[vm] = TickFacts(last.counter, last.seen_ns)
        return points

    def take_frames(self, vm: str, root: int, stretch: Stretch) -> list[Point]:
        """The guest's accounts of frames in what root number `root` has seen of it, oldest first."""
        if stretch.frames:
            last = stretch.frames[-1]
            if vm not in self.frames or self.frames[vm].at_ns < last.seen_ns:
                self.frames[vm] = FrameFacts(last.count, last.lost, last.again, last.seen_ns)
        return [(each.seen_ns, each.count, root) for each in stretch.frames]

    def knows(self, vm: str, root: int, stretch: Stretch) -> bool:
        """Whether it was taken already: a root whose stream broke tells again what may have been lost."""
        known = self._known.get((vm, root))
        if known is None or not stretch.ticks:
            return False
        last = stretch.ticks[-1]
        # By both: stamps are not exact to the ns, and a guest that has booted again counts anew.
        return last.seen_ns <= known.seen_ns and last.counter <= known.counter

    def _joint(self, vm: str) -> Tick | None:
        """The tick whose line was cut, when both parts are there."""
        if vm not in self._heads:
            return None
        root, head, at_ns, following = self._heads[vm]
        for other, tail in self._tails[vm].items():
            tick = parse_line(tail + head, at_ns) if other != root else None
            # Anything else is a part that is still on its way.
            if tick is not None and tick.counter == following - 1:
                del self._heads[vm]
                return tick
        return None


def gap_of(handoff: HandoffFacts, points: Sequence[Point]) -> int:
    """The largest distance of two ticks around a handoff, ns; 0 as long as it can't be told.

    `points` are the guest's newest. If one is missing among those around the handoff, nobody can tell.
    """
    if handoff.stage is not Stage.DONE or not handoff.resumed_ns:
        return 0
    start, end = handoff.stopped_ns, handoff.resumed_ns
    near = sorted(
        (point[0], point[1]) for point in points if start - SETTLE_NS <= point[0] <= end + SETTLE_NS
    )
    if not near or near[0][0] > start or near[-1][0] < end:
        return 0
    if any(after[1] != before[1] + 1 for before, after in pairwise(near)):
        return 0
    return gap_around([Tick(counter, seen_ns) for seen_ns, counter in near], start, end)
