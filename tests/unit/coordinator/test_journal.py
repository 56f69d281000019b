# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: what a torn or a broken one does to those who read and write it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import Edge, Standing
from multiroot.errors import MultirootError
from multiroot.phases import Phases

FIRST_EDGES = [("plan", Edge.BEGIN), ("plan", Edge.DONE), ("carve", Edge.BEGIN), ("carve", Edge.UNDO)]


@contextmanager
def folder() -> Iterator[Path]:
    """For tests whose examples must not share one."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def written(path: Path) -> list[Standing]:
    """A journal with some entries; where things stood after each number of them."""
    journal = Journal(path, "boot")
    standings = [journal.standing()]
    for step, edge in FIRST_EDGES:
        journal.write(step, edge, note=f"{step} {edge} ü")
        standings.append(journal.standing())
    return standings


@given(st.data())
def test_wherever_it_is_torn_the_whole_lines_count_and_the_next_one_is_whole(data: st.DataObject) -> None:
    with folder() as top:
        path = top / "journal"
        standings = written(path)
        whole = path.read_bytes()
        kept = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:kept])
        journal = Journal(path, "boot")
        assert journal.standing() == standings[whole[:kept].count(b"\n")]
        journal.write("load", Edge.BEGIN)
        assert Journal(path, "boot").standing() == journal.standing()


@given(st.binary(max_size=40), st.integers(0, len(FIRST_EDGES)))
def test_whatever_bytes_are_in_it_nothing_but_an_error_comes_of_them(garbage: bytes, line: int) -> None:
    with folder() as top:
        path = top / "journal"
        written(path)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:line], garbage, b"\n", *lines[line:]]))
        journal = Journal(path, "boot")
        before = path.read_bytes()
        assert journal.problem is not None
        with pytest.raises(MultirootError, match=f"broken at line {line + 1}"):
            journal.write("load", Edge.BEGIN)
        with pytest.raises(MultirootError, match="broken at line"):
            journal.reset()
        assert path.read_bytes() == before, "it is for somebody to look at"


def test_entries_of_an_earlier_boot_are_void(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path)
    journal = Journal(path, "next boot")
    assert journal.standing() == Standing()
    journal.write("plan", Edge.BEGIN)
    assert Journal(path, "next boot").standing().begun == ("plan",)
    assert Journal(path).standing() == Standing(), "this machine's boot is another one"


async def test_a_broken_journal_stops_updates_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path)
    path.write_bytes(b"garbage\n" + path.read_bytes())
    coordinator = Coordinator(Journal(path, "boot"), {}, Phases("test"))
    assert "broken at line 1" in await coordinator.recover(alive=False)
    assert "broken at line 1" in coordinator.error
    for call in (
        coordinator.launch({}),
        coordinator.update({}, "commit"),
        coordinator.retire(),
        coordinator.abort(),
        coordinator.release(),
    ):
        with pytest.raises(MultirootError, match=f"remove it: rm {path}"):
            await call
    with pytest.raises(MultirootError, match="broken at line 1"):
        coordinator.way_on()
    assert not coordinator.doing
    path.unlink()
    assert await coordinator.abort() == []
    assert coordinator.error == ""
