# SPDX-License-Identifier: GPL-2.0-or-later
"""Ticks read from a console keeper's file while it is written: in the middle of a line, over segments."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.vm.console import RECORD, Log
from multiroot.vm.messages import ticks_from_proto, ticks_to_proto
from multiroot.vm.ticks import Stretch
from multiroot.watch.tick_tail import TickTail, TickTails


def raw_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "vm0" / "console.rec"


def keeper(record: Path, segment: int = 1 << 20) -> Log:
    record.parent.mkdir(exist_ok=True)
    return Log(str(record), segment)


def counters(stretch: Stretch) -> list[int]:
    return [tick.counter for tick in stretch.ticks]


def test_what_was_said_before_is_left_out_and_then_each_tick_comes_once(record: Path) -> None:
    log = keeper(record)
    log.append(b"T 1\nT 2\nT", 1)
    tail = TickTail(record, raw_ns, whole=False)
    assert tail.read() == Stretch()
    log.append(b" 3\nT 4\n", raw_ns())
    # Nobody knows how the line began that the first look saw the end of.
    assert counters(tail.read()) == [4]
    assert counters(tail.read()) == []
    log.append(b"T 5\nT 6", raw_ns())
    seen = tail.read()
    assert (counters(seen), seen.tail) == ([5], b"T 6")
    log.append(b"\n", 123_000_000_000)
    (tick,) = tail.read().ticks
    assert tick.counter == 6
    assert abs(tick.seen_ns - 123_000_000_000) < 1_000_000


def test_a_console_that_begins_now_is_read_whole_with_the_end_of_the_other_roots_line(record: Path) -> None:
    tail = TickTail(record, raw_ns, whole=True)
    assert tail.read() == Stretch()
    log = keeper(record)
    log.append(b"7", 1_000)
    assert tail.read() == Stretch()
    log.append(b"9\r\nT 7a\r\n", 2_000)
    seen = tail.read()
    assert (seen.head, counters(seen)) == (b"79\r", [0x7A])
    log.append(b"T 7b\n", 3_000)
    assert tail.read().head == b""


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(60, 400))
def test_however_it_is_cut_nothing_is_lost_or_repeated(cuts: list[int], segment: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "vm0" / "console.rec"
        log = keeper(record, segment)
        tail = TickTail(record, raw_ns, whole=True)
        said = b"".join(b"T %x\n" % number for number in range(1, 40))
        log.append(b"\n", 1)
        seen = counters(tail.read())
        for cut in cuts:
            log.append(said[:cut], 1)
            said = said[cut:]
            seen += counters(tail.read())
        log.append(said + b"\n", 1)
        # A look may see the end of one segment, and the next one only the next time.
        for _ in range(3):
            seen += counters(tail.read())
    assert seen == list(range(1, 40))


def test_one_that_begins_in_the_middle_of_a_record_begins_again(record: Path) -> None:
    log = keeper(record)
    log.append(b"T 1\n", 1)
    tail = TickTail(record, raw_ns, whole=False)
    tail.read()
    with record.open("ab") as file:
        file.write(RECORD.pack(5, 4, 4) + b"T 2\n" + RECORD.pack(5, 77, 4) + b"T 9\n")
    assert counters(tail.read()) == []
    with record.open("ab") as file:
        file.write(RECORD.pack(6, 81, 8) + b"T a\nT b\n")
    tail.read()
    with record.open("ab") as file:
        file.write(RECORD.pack(7, 89, 8) + b"T c\nT d\n")
    assert counters(tail.read())[-1] == 0xD


def test_consoles_that_come_later_are_read_from_their_beginning_and_a_vm_may_come_twice(
    tmp_path: Path,
) -> None:
    tails = TickTails(raw_ns)
    first = tmp_path / "vm0" / "console.rec"
    log = keeper(first)
    log.append(b"T 1\n", 1)
    assert list(tails.read({"vm0": first})) == []
    second = tmp_path / "vm1" / "console.rec"
    other = keeper(second)
    other.append(b"\nT 5\n", 1)
    log.append(b"T 2\nT 3\n", 1)
    seen = dict(tails.read({"vm0": first, "vm1": second}))
    assert {name: counters(each) for name, each in seen.items()} == {"vm0": [3], "vm1": [5]}
    # It goes, and comes again with a new folder.
    (tmp_path / "vm0").rename(tmp_path / "gone")
    again = keeper(first)
    again.append(b"\nT 8\n", 1)
    seen = dict(tails.read({"vm0": first}))
    assert counters(seen["vm0"]) == [8]
    tails.restart()
    again.append(b"T 9\n", 1)
    assert list(tails.read({"vm0": first})) == []


def test_a_cards_frames_are_told_with_the_ticks_however_their_line_is_cut(record: Path) -> None:
    log = keeper(record)
    tail = TickTail(record, raw_ns, whole=True)
    log.append(b"T 1\nF 3 90 count=88 lost=0 again=0 dropped=0\nT 2\nF 3 9", raw_ns())
    seen = tail.read()
    assert [(each.last, each.count, each.lost) for each in seen.frames] == [(90, 88, 0)]
    log.append(
        b"9 count=97 lost=1 again=0 dropped=0\nF 1 x count=1 lost=0 again=0 dropped=0\nT 3\n", raw_ns()
    )
    seen = tail.read()
    assert [(each.last, each.count, each.lost) for each in seen.frames] == [(99, 97, 1)]
    assert ticks_from_proto(ticks_to_proto(seen)) == seen
    log.append(b"F 3 120 count=117 lost=1 again=0 dropped=0\n", raw_ns())
    seen = tail.read()
    assert [(each.last, each.count, each.lost) for each in seen.frames] == [(120, 117, 1)]
    assert ticks_from_proto(ticks_to_proto(seen)).frames == seen.frames
