# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is in the journal's file, an agent starts with it or says what is wrong."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from anything import json_with, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import STEPS, Edge
from multiroot.errors import MultirootError

STEP = next(iter(STEPS))
GOOD = {"boot": "boot", "step": STEP, "edge": "begin", "wall_ns": 1, "data": {"request": {"kernel": "6.12"}}}
LINES = (
    st.just(json.dumps(GOOD).encode())
    | (spoiled(GOOD) | json_with("boot", "step", "edge", "wall_ns", "data")).map(
        lambda value: json.dumps(value).encode()
    )
    | st.binary(max_size=40)
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=4), st.booleans())
def test_any_file_is_read_or_refused(tmp_path: Path, lines: list[bytes], torn: bool) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"\n".join(lines) + (b"" if torn else b"\n"))
    with suppress(MultirootError):
        journal = Journal(path, "boot")
        journal.write(STEP, Edge.BEGIN)
        assert STEP in journal.standing().begun
        assert Journal(path, "boot").standing() == journal.standing()


@pytest.mark.parametrize(
    "line",
    [
        b'{"step":"plan","edge":"done","wall_ns":1,"data":{}}',
        b'{"boot":"boot","step":"dance","edge":"done","wall_ns":1,"data":{}}',
        b'{"boot":"boot","step":"plan","edge":"done","wall_ns":1,"data":[1]}',
        b'{"boot":"boot","step":["plan"],"edge":"done","wall_ns":1,"data":{}}',
        b'{"boot":"boot","step":"plan","edge":"done","wall_ns":"x","data":{}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"7",
    ],
)
def test_a_line_that_is_none_of_ours_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(line + b"\n" + json.dumps(GOOD).encode() + b"\n")
    with pytest.raises(MultirootError, match=r"journal.* is broken at line 1"):
        Journal(path, "boot").check()


def test_a_torn_line_is_cut_off_even_in_the_middle_of_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = json.dumps(GOOD).encode() + b"\n"
    path.write_bytes(whole + '{"step":"pl\u00e4'.encode()[:-1])
    assert Journal(path, "boot").standing().begun == (STEP,)
    assert path.read_bytes() == whole


def test_a_whole_entry_without_its_newline_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(json.dumps(GOOD))
    journal = Journal(path, "boot")
    assert journal.standing().begun == ()
    journal.write(STEP, Edge.BEGIN)
    assert Journal(path, "boot").standing().begun == (STEP,)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal", "boot")
    journal.write(STEP, Edge.BEGIN)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MultirootError, match="No space left"):
        journal.write(STEP, Edge.DONE)
    assert Journal(tmp_path / "journal", "boot").standing() == journal.standing()


def test_a_folder_that_cannot_be_had_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MultirootError, match="cannot read the journal"):
        Journal(tmp_path / "file" / "journal", "boot").check()
    later = Journal(tmp_path / "folder" / "journal", "boot")
    (tmp_path / "folder").touch()
    with pytest.raises(MultirootError, match="cannot write the journal"):
        later.write(STEP, Edge.BEGIN)
    (tmp_path / "journal").mkdir()
    with pytest.raises(MultirootError, match="cannot read the journal"):
        Journal(tmp_path / "journal", "boot").check()
