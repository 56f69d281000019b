# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses the ticker guest's lines and tells whether its count went on unbroken between roots; pure.

The guest's protocol is described in qemu-lab/guests/README.md. A root's console sees a stretch of the guest's
output that may begin and end inside of a line; stretches of successive roots are joined into one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

_MOST = (1 << 63) - 1  # of any number that is told
_LINE = re.compile(
    rb"(?:T (?P<tick>[0-9a-f]{1,16})|R (?P<report>[0-9a-f]{1,16}) boot=(?P<boot>[0-9a-f-]{1,64})"
    rb" mono=(?P<mono>\d{1,20}) wall=(?P<wall>\d{1,20}) checked=(?P<checked>\d{1,20})"
    rb" bad=(?P<bad>\d{1,20}) gap=(?P<gap>\d{1,20}))\r?"
)
_FRAMES = re.compile(
    rb"F (\d{1,20}) (\d{1,20}) count=(\d{1,20}) lost=(\d{1,20}) again=(\d{1,20}) dropped=(\d{1,20})\r?"
)


@dataclass(frozen=True)
class Report:
    """A tick with the guest's own account; times in ns, `max_gap_ns` on the guest's clock."""

    counter: int
    boot_id: str
    mono_ns: int
    wall_ns: int
    checked_bytes: int
    bad_bytes: int
    max_gap_ns: int


@dataclass(frozen=True)
class Tick:
    """A tick and when its line's end was seen from outside, in ns."""

    counter: int
    seen_ns: int
    report: Report | None = None


@dataclass(frozen=True)
class Frames:
    """A guest's account of the numbered frames that its own card has got, seen from outside at `seen_ns`.

    All since the guest's start: numbers `first` to `last`, `count` frames, of which `again` came out of
    order, and `lost` numbers that never came.
    """

    seen_ns: int
    first: int
    last: int
    count: int
    lost: int
    again: int
    dropped: int


@dataclass(frozen=True)
class Stretch:
    """A stretch of the guest's output.

    `head` is what comes before the first line end, seen at `head_ns`, `tail` what comes behind the last
    one. A stretch without any line end has everything in `head` and `head_ns` None. `frames` are the accounts
    whose line came whole; one that was cut is made up for by the next.
    """

    head: bytes = b""
    head_ns: int | None = None
    ticks: tuple[Tick, ...] = ()
    tail: bytes = b""
    frames: tuple[Frames, ...] = ()

    def then(self, later: Stretch) -> Stretch:
        """This stretch and the one right behind it as one."""
        if self.head_ns is None:
            if later.head_ns is None:
                return Stretch(self.head + later.head)
            return replace(later, head=self.head + later.head)
        middle = self.tail + later.head
        if later.head_ns is None:
            return replace(self, tail=middle)
        joint = parse_line(middle, later.head_ns)
        account = None if joint else parse_frames(middle, later.head_ns)
        ticks = (*self.ticks, *((joint,) if joint else ()), *later.ticks)
        frames = (*self.frames, *((account,) if account else ()), *later.frames)
        return Stretch(self.head, self.head_ns, ticks, later.tail, frames)


def parse_line(line: bytes, seen_ns: int) -> Tick | None:
    """The tick in a whole line (without its end), None if the line is anything else."""
    match = _LINE.fullmatch(line)
    if not match:
        return None
    counter = int(match["tick"] or match["report"], 16)
    if counter > _MOST:
        return None
    if match["tick"]:
        return Tick(counter, seen_ns)
    numbers = [int(match[key]) for key in ("mono", "wall", "checked", "bad", "gap")]
    if max(numbers) > _MOST:
        # Nobody believes all that a guest says: this can't be.
        return Tick(counter, seen_ns)
    return Tick(counter, seen_ns, Report(counter, match["boot"].decode(), *numbers))


def parse_frames(line: bytes, seen_ns: int) -> Frames | None:
    """The account of frames in a whole line (without its end), None if the line is anything else."""
    match = _FRAMES.fullmatch(line)
    numbers = [int(each) for each in match.groups()] if match else []
    return Frames(seen_ns, *numbers) if numbers and max(numbers) <= _MOST else None


def parse(pieces: Iterable[tuple[int, bytes]]) -> Stretch:
    """The stretch made of (seen_ns, bytes) pieces; a line was seen when the piece with its end came."""
    head, head_ns = b"", None
    ticks: list[Tick] = []
    frames: list[Frames] = []
    rest = b""
    for seen_ns, data in pieces:
        *lines, rest = (rest + data).split(b"\n")
        if lines and head_ns is None:
            head, head_ns = lines.pop(0), seen_ns
        for line in lines:
            if tick := parse_line(line, seen_ns):
                ticks.append(tick)
            elif account := parse_frames(line, seen_ns):
                frames.append(account)
    if head_ns is None:
        return Stretch(rest)
    return Stretch(head, head_ns, tuple(ticks), rest, tuple(frames))


@dataclass(frozen=True)
class Continuity:
    """How a guest's ticks went on. Times in ns as seen from outside.

    `gap_ns` is the largest distance between two neighbouring ticks, `gap_after` the counter of the first of
    the two.
    """

    first: int
    last: int
    seen: int
    missing: tuple[int, ...]
    repeated: tuple[int, ...]
    gap_ns: int
    gap_after: int
    boot_ids: tuple[str, ...]
    checked_bytes: int
    bad_bytes: int
    reports: tuple[Report, ...] = field(repr=False)

    @property
    def unbroken(self) -> bool:
        """Whether no tick is missing or repeated, the guest booted once, and its memory is undamaged."""
        return not (self.missing or self.repeated or self.bad_bytes or len(self.boot_ids) != 1)


def continuity(ticks: Sequence[Tick]) -> Continuity | None:
    """Judge ticks in the order they were seen; None if there are none."""
    if not ticks:
        return None
    counters = [tick.counter for tick in ticks]
    times = Counter(counters)
    first, last = min(times), max(times)
    gap_ns, gap_after = max(
        ((after.seen_ns - before.seen_ns, before.counter) for before, after in pairwise(ticks)),
        default=(0, first),
    )
    reports = tuple(tick.report for tick in ticks if tick.report)
    return Continuity(
        first=first,
        last=last,
        seen=len(ticks),
        missing=tuple(counter for counter in range(first, last + 1) if counter not in times),
        repeated=tuple(sorted(counter for counter, count in times.items() if count > 1)),
        gap_ns=gap_ns,
        gap_after=gap_after,
        boot_ids=tuple(dict.fromkeys(report.boot_id for report in reports)),
        checked_bytes=max((report.checked_bytes for report in reports), default=0),
        bad_bytes=max((report.bad_bytes for report in reports), default=0),
        reports=reports,
    )


@dataclass(frozen=True)
class ClocksLost:
    """How much less than the machine-wide clock a guest's clocks have gone on, ns; negative: more."""

    mono_ns: int
    wall_ns: int


def clocks_lost(before: Sequence[Tick], after: Sequence[Tick]) -> ClocksLost:
    """Between the reports among the ticks `before` and those among `after`; each must have one.

    A report is seen when it has come through the console, some time after the guest has read its clocks. Of
    each side the one that was fastest counts, so that this time is nearly the same on both.
    """

    def behind(ticks: Sequence[Tick]) -> ClocksLost:
        told = [(tick.seen_ns, tick.report) for tick in ticks if tick.report]
        return ClocksLost(
            min(seen_ns - report.mono_ns for seen_ns, report in told),
            min(seen_ns - report.wall_ns for seen_ns, report in told),
        )

    earlier, later = behind(before), behind(after)
    return ClocksLost(later.mono_ns - earlier.mono_ns, later.wall_ns - earlier.wall_ns)


def gap_around(ticks: Sequence[Tick], start_ns: int, end_ns: int, margin_ns: int = 1_000_000_000) -> int:
    """Largest distance, ns, between neighbouring ticks seen from `margin_ns` before a time span to as long
    behind it; 0 if there are none. Ticks long before or after it tell of other things.
    """
    near = [tick.seen_ns for tick in ticks if start_ns - margin_ns <= tick.seen_ns <= end_ns + margin_ns]
    return max((after - before for before, after in pairwise(near)), default=0)


def gap_over(ticks: Sequence[Tick], stopped_ns: int, resumed_ns: int) -> dict[str, int]:
    """The guest's gap over a blackout and its parts, as metrics in ns; empty without a tick on either side.

    From the last tick seen before RESUME to STOP, from RESUME to the first tick, and all of it.
    """
    before = [tick.seen_ns for tick in ticks if tick.seen_ns <= resumed_ns]
    after = [tick.seen_ns for tick in ticks if tick.seen_ns > resumed_ns]
    if not before or not after:
        return {}
    return {
        "blackout_gap_ns": min(after) - max(before),
        "tick_to_stop_ns": stopped_ns - max(before),
        "resume_to_tick_ns": min(after) - resumed_ns,
    }
