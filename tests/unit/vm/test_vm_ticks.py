# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.vm.messages import ticks_from_proto, ticks_to_proto
from multiroot.vm.ticks import (
    ClocksLost,
    Report,
    Stretch,
    Tick,
    clocks_lost,
    continuity,
    gap_around,
    gap_over,
    parse,
    parse_line,
)

BOOT = "6f1c3f5e-0000-4000-8000-1234567890ab"


def output(count: int, first: int = 1) -> bytes:
    """What the ticker prints, with a kernel message in between."""
    lines = ["[    0.1] Linux version", f"READY boot={BOOT}"]
    for counter in range(first, first + count):
        if counter % 64 == 0:
            lines.append(
                f"R {counter:x} boot={BOOT} mono={counter} wall=7 checked={counter * 65536} bad=0 gap=11"
            )
        else:
            lines.append(f"T {counter:x}")
    return "".join(line + "\n" for line in lines).encode()


@st.composite
def cut_streams(draw: st.DrawFn) -> list[list[tuple[int, bytes]]]:
    """A ticker's output cut into pieces, and these dealt out to roots in a row."""
    data = output(draw(st.integers(0, 200)))
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=40)) | {0, len(data)})
    pieces = [(1000 + 10 * i, data[a:b]) for i, (a, b) in enumerate(pairwise(cuts))]
    borders = sorted(draw(st.lists(st.integers(0, len(pieces)), max_size=4)))
    edges = [0, *borders, len(pieces)]
    return [pieces[a:b] for a, b in pairwise(edges)]


@given(cut_streams())
def test_joined_stretches_are_the_whole(roots: list[list[tuple[int, bytes]]]) -> None:
    whole = parse(piece for root in roots for piece in root)
    joined = Stretch()
    for root in roots:
        joined = joined.then(parse(root))
    assert joined == whole


@given(cut_streams(), st.data())
def test_joining_is_associative(roots: list[list[tuple[int, bytes]]], data: st.DataObject) -> None:
    stretches = [parse(root) for root in roots]
    while len(stretches) > 1:
        at = data.draw(st.integers(0, len(stretches) - 2))
        stretches[at : at + 2] = [stretches[at].then(stretches[at + 1])]
    assert stretches[0] == parse(piece for root in roots for piece in root)


@given(cut_streams())
def test_messages_carry_stretches(roots: list[list[tuple[int, bytes]]]) -> None:
    for root in roots:
        stretch = parse(root)
        assert ticks_from_proto(ticks_to_proto(stretch)) == stretch


@given(st.lists(st.binary(max_size=30), max_size=30))
def test_any_bytes_can_be_parsed(data: list[bytes]) -> None:
    stretch = parse(enumerate(data, 1))
    lines = b"".join(data).split(b"\n")
    assert stretch.head == lines[0]
    assert stretch.tail == (lines[-1] if len(lines) > 1 else b"")


def test_lines() -> None:
    assert parse_line(b"T ff", 5) == Tick(255, 5)
    assert parse_line(f"R 40 boot={BOOT} mono=1 wall=2 checked=3 bad=4 gap=5\r".encode(), 6) == Tick(
        64, 6, Report(64, BOOT, 1, 2, 3, 4, 5)
    )
    for line in (
        b"",
        b"T",
        b"T xyz",
        b"T 12 13",
        b"READY boot=1",
        b"R 40 boot=1",
        b"[  0.1] T 12",
        b"T 1\xff",
    ):
        assert parse_line(line, 1) is None


def test_a_line_split_between_two_roots_is_seen_when_its_end_is() -> None:
    old = parse([(10, b"T 1\nT 2\nT"), (20, b" ")])
    new = parse([(90, b"3\nT 4\n")])
    assert (old.tail, new.head) == (b"T ", b"3")
    assert [(tick.counter, tick.seen_ns) for tick in old.then(new).ticks] == [(2, 10), (3, 90), (4, 90)]


def test_unbroken() -> None:
    seen = continuity(parse([(i, bytes([byte])) for i, byte in enumerate(output(130))]).ticks)
    assert seen is not None
    assert seen.unbroken
    assert (seen.first, seen.last, seen.seen, seen.boot_ids) == (1, 130, 130, (BOOT,))
    assert seen.checked_bytes == 128 * 65536


@pytest.mark.parametrize(
    ("counters", "missing", "repeated"),
    [
        ([64, 65, 67, 68], (66,), ()),
        ([64, 65, 65, 66], (), (65,)),
        ([64, 66, 65, 66, 70], (67, 68, 69), (66,)),
    ],
)
def test_broken(counters: list[int], missing: tuple[int, ...], repeated: tuple[int, ...]) -> None:
    report = Report(64, BOOT, 0, 0, 0, 0, 0)
    ticks = [Tick(counter, 10 * i, report if counter == 64 else None) for i, counter in enumerate(counters)]
    seen = continuity(ticks)
    assert seen is not None
    assert (seen.missing, seen.repeated, seen.unbroken) == (missing, repeated, False)


def test_the_largest_gap_and_where() -> None:
    ticks = [Tick(7, 100), Tick(8, 110), Tick(9, 210), Tick(10, 215)]
    seen = continuity(ticks)
    assert seen is not None
    assert (seen.gap_ns, seen.gap_after) == (100, 8)
    assert continuity([]) is None


def test_reboot_and_damage_break_it() -> None:
    def report(counter: int, boot: str, bad: int) -> Tick:
        return Tick(counter, counter, Report(counter, boot, 0, 0, 1, bad, 0))

    rebooted = continuity([report(1, "a", 0), report(2, "b", 0)])
    damaged = continuity([report(1, "a", 0), report(2, "a", 8)])
    unknown = continuity([Tick(1, 1), Tick(2, 2)])
    assert rebooted
    assert damaged
    assert unknown
    assert [rebooted.unbroken, damaged.unbroken, unknown.unbroken] == [False, False, False]


def test_the_gap_around_a_span_leaves_out_what_is_far_away() -> None:
    second = 1_000_000_000
    seen = (0, 5 * second, 5 * second + 10, 5 * second + 90, 5 * second + 95, 9 * second)
    ticks = [Tick(number, at) for number, at in enumerate(seen)]
    assert gap_around(ticks, 5 * second + 20, 5 * second + 80) == 80
    assert gap_around(ticks, 20 * second, 21 * second) == 0


@pytest.mark.parametrize("digits", [f"{1 << 63}", f"{(1 << 64) - 7_000_000}", f"{10**19}", "1" * 5000])
def test_of_a_report_that_cannot_be_only_the_tick_counts(digits: str) -> None:
    """Seen of a guest whose clock went back a little: a difference of unsigned numbers."""
    line = f"R 40 boot=0-1 mono=1 wall=1 checked=1 bad=0 gap={digits}".encode()
    assert parse_line(line, 5) in (Tick(0x40, 5), None)
    ticks_to_proto(parse([(1, b"\n"), (5, line + b"\n"), (6, b"T ffffffffffffffff\n")]))


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    st.integers(-(10**9), 10**9),
    st.integers(-(10**9), 10**9),
)
def test_what_a_guests_clocks_lost_is_told_whatever_its_console_was_busy_with(
    busy_before: list[int], busy_after: list[int], mono_lost: int, wall_lost: int
) -> None:
    def told(at_ns: int, busy_ns: int, mono_ns: int, wall_ns: int) -> Tick:
        report = Report(64, BOOT, at_ns + 5 - mono_ns, at_ns + 10**18 - wall_ns, 1, 0, 0)
        return Tick(64, at_ns + busy_ns, report)

    start = 10**12
    before = [told(start + n, busy, 0, 0) for n, busy in enumerate([0, *busy_before])]
    after = [told(2 * start + n, busy, mono_lost, wall_lost) for n, busy in enumerate([*busy_after, 0])]
    assert clocks_lost([Tick(1, start), *before], after) == ClocksLost(mono_lost, wall_lost)


def test_the_gap_over_a_blackout_is_that_of_the_two_ticks_on_its_sides() -> None:
    seen = [Tick(number, at) for number, at in enumerate((0, 100, 130, 190, 900))]
    assert gap_over(seen, 140, 180) == {
        "blackout_gap_ns": 60,
        "tick_to_stop_ns": 10,
        "resume_to_tick_ns": 10,
    }
    assert gap_over(seen, 140, 950) == gap_over([], 1, 2) == {}
