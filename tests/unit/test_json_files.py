# SPDX-License-Identifier: GPL-2.0-or-later
"""A JSON file is the old one or the new one, whenever its writer ends; a damaged one is named."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anything import json_with, made_or_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot import json_files
from multiroot.errors import BadRequestError, MultirootError

OLD, NEW = {"kept": "old"}, {"kept": "new" * 10_000}
CALLS = ("open", "fchmod", "fsync", "replace")


class Killed(BaseException):
    """The agent's process ends here: nothing of ours may catch it."""


class Calls:
    """What a writer asks of the system. `then` is called before and after call number `at`, or never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0
        self.then: Callable[[], None] = lambda: None
        self.seen: list[tuple[str, str]] = []
        self._moment = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **named: Any) -> Any:
            where = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
            self.seen.append((name, where.name))
            self._pass()
            result = real(target, *arguments, **named)
            self._pass()
            return result

        return call

    def _pass(self) -> None:
        self._moment += 1
        if self._moment == self.at:
            self.then()

    def begin(self, at: int) -> None:
        self.at, self._moment = at, 0
        self.seen.clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def raising(error: BaseException) -> Callable[[], None]:
    def then() -> None:
        raise error

    return then


def content(path: Path) -> Any:
    return json_files.read(path, dict, dict)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    json_files.write(path, OLD)
    json_files.write(path, NEW)
    assert content(path) == NEW
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_the_content_is_on_stable_storage_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, calls: Calls
) -> None:
    json_files.write(tmp_path / "file", OLD)
    assert [call for call in calls.seen if call[0] in ("fsync", "replace")] == [
        ("fsync", "file.new"),
        ("replace", "file.new"),
        ("fsync", tmp_path.name),
    ]


def test_a_writer_that_is_killed_at_any_moment_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, calls: Calls
) -> None:
    path = tmp_path / "file"
    calls.then = raising(Killed())
    fates = []
    for at in range(1, 100):
        calls.begin(0)
        json_files.write(path, OLD)
        calls.begin(at)
        try:
            json_files.write(path, NEW)
        except Killed:
            fates.append(content(path)["kept"][:3])
        else:
            break
    # Two moments for each call: open, fchmod, fsync, replace; open and fsync of the folder.
    assert fates == ["old"] * 7 + ["new"] * 5


def test_half_a_file_that_was_left_is_never_read_and_the_next_writer_gets_rid_of_it(
    tmp_path: Path, calls: Calls
) -> None:
    path = tmp_path / "file"
    json_files.write(path, OLD)

    def cut_and_die() -> None:
        os.truncate(tmp_path / "file.new", 5)
        raise Killed

    calls.then = cut_and_die
    calls.begin(5)  # as the content goes to the disk
    with pytest.raises(Killed):
        json_files.write(path, NEW)
    assert (tmp_path / "file.new").stat().st_size == 5
    assert content(path) == OLD
    calls.begin(0)
    json_files.write(path, {})
    assert content(path) == {}
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("at", range(1, 8))
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, calls: Calls, at: int
) -> None:
    path = tmp_path / "file"
    json_files.write(path, OLD)
    calls.then = raising(OSError(errno.ENOSPC, "No space left on device"))
    calls.begin(at)
    with pytest.raises(MultirootError, match=f"cannot write {path}: No space left on device"):
        json_files.write(path, NEW)
    assert content(path) == OLD
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_is_no_json_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    json_files.write(path, OLD)
    with pytest.raises(TypeError):
        json_files.write(path, {"kept": {1, 2}})
    assert content(path) == OLD
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MultirootError, match=r"cannot write .*: No such file or directory"):
        json_files.write(tmp_path / "folder" / "file", OLD)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_one_asked_for_whatever_was_there(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    for left in (path, tmp_path / "file.new"):
        left.touch()
        left.chmod(0o666)
    before = os.umask(0o077)
    try:
        json_files.write(path, OLD, mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nobody_else_may_read_what_has_no_mode_of_its_own(tmp_path: Path) -> None:
    json_files.write(tmp_path / "file", OLD)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert json_files.read(tmp_path / "file", dict, dict) is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "Expecting value"),
        (b'{"kept": "o', "Unterminated string"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "it is no JSON object"),
        (b"7", "it is no JSON object"),
    ],
)
def test_a_damaged_file_is_named_and_what_is_wrong(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(MultirootError) as refusal:
        json_files.read(path, dict, dict, "mend it")
    assert refusal.value.message.startswith(f"{path} is damaged: ")
    assert says in refusal.value.message
    assert refusal.value.hint == "mend it"


def test_what_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MultirootError, match=f"cannot read {tmp_path}: Is a directory"):
        json_files.read(tmp_path, dict, dict)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("verify"), "it lacks 'verify'"),
        (IndexError("list index"), "list index"),
        (TypeError("no number"), "no number"),
        (OverflowError("too large"), "too large"),
        (BadRequestError("not a plan"), "not a plan"),
    ],
)
def test_a_record_that_cannot_be_made_is_a_damaged_file(tmp_path: Path, error: Exception, says: str) -> None:
    path = tmp_path / "file"
    path.write_text("{}")

    def make(_: dict[str, Any]) -> None:
        raise error

    with pytest.raises(MultirootError, match=f"{path} is damaged: {says}"):
        json_files.read(path, dict, make)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | json_with("kept").map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    found = made_or_refused(lambda: json_files.read(path, list, list))
    if isinstance(found, MultirootError):
        assert found.message.startswith(f"{path} is damaged: ")
    else:
        assert repr(found) == repr(json.loads(data))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), json_with(), max_size=4))
def test_any_json_comes_back(tmp_path: Path, value: dict[str, Any]) -> None:
    json_files.write(tmp_path / "file", value)
    assert repr(content(tmp_path / "file")) == repr(value)
