# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of what a guest's work looked like from outside."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot import proc
from multiroot.demo import streams
from multiroot.demo.streams import Blocks, Login, Pings, runs
from multiroot.errors import MultirootError

LINE = "[{at:.6f}] 64 bytes from 10.77.3.2: icmp_seq={number} ttl=64 time=0.4 ms\n"


@given(st.sets(st.integers(0, 200)))
def test_runs_are_what_they_were_made_of(numbers: set[int]) -> None:
    found = runs(sorted(numbers))
    assert {number for each in found for number in each} == numbers
    assert all(before.stop < after.start for before, after in itertools.pairwise(found))


@pytest.fixture
def pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pings:
    """Of a guest that answers nothing by itself."""
    monkeypatch.setattr(proc, "spawn", lambda *_, **__: None)
    return Pings(Login(1, tmp_path, tmp_path), "10.77.3.2", tmp_path / "log")


def answer(pings: Pings, *numbers: int, gap: float = 0.0) -> None:
    for number in numbers:
        pings._note(LINE.format(at=1000 + number / 100 + gap, number=number).encode())


def test_lost_pings_are_told_by_where_they_were_lost(pings: Pings) -> None:
    answer(pings, 1, 2, 3, 6, 7, 20, 21)
    assert pings.newest == 21
    assert pings.lost() == [range(4, 6), range(8, 20)]
    assert pings.lost(7) == [range(8, 20)]
    assert pings.lost(0, 7) == [range(4, 6)]
    assert pings.lost(20, 21) == []


def test_a_late_answer_is_one(pings: Pings) -> None:
    answer(pings, 1, 3, 2)
    assert pings.lost() == []
    assert pings.again == 0
    answer(pings, 2)
    assert pings.again == 1


def test_the_longest_gap_is_that_of_what_came_since(pings: Pings) -> None:
    answer(pings, 1, 2)
    answer(pings, 3, gap=5)
    since = time.monotonic()
    answer(pings, 4, 5, gap=5)
    assert pings.longest_gap(0) == pytest.approx(5.01)
    assert pings.longest_gap(since) == pytest.approx(0.01)


def test_blocks_of_the_disk_are_timed_by_the_guests_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "spawn", lambda *_, **__: None)
    blocks = Blocks(Login(1, tmp_path, tmp_path), tmp_path / "log")
    for number, at in enumerate((10.0, 10.05, 13.0, 13.05), 1):
        blocks._note(f"{number} {at}\n".encode())
        blocks._came()
    assert blocks.longest_gap(0) == pytest.approx(2.95)
    assert blocks.longest_gap(time.monotonic()) == 0
    for bad in (b"not 13.1\n", b"6 13.1\n"):
        with pytest.raises(MultirootError, match="block 5 did not come back"):
            blocks._note(bad)


def test_the_program_of_the_blocks_runs(tmp_path: Path) -> None:
    # Not each file system has O_DIRECT.
    program = streams._BLOCKS.replace("/var/tmp", str(tmp_path)).replace("| os.O_DIRECT", "")
    program = program.replace("while True", "while number < 2")
    said = proc.run(["python3", "-c", program]).stdout.splitlines()
    assert [line.split()[0] for line in said] == ["1", "2"]
