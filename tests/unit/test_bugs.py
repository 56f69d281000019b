# SPDX-License-Identifier: GPL-2.0-or-later
"""What nobody expected: one line, an exit code of its own, and a file for who mends it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from multiroot import bugs
from multiroot.errors import BadRequestError, BugError, MultirootError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def fail(error: Exception) -> None:
    try:
        raise KeyError("the cause")
    except KeyError as cause:
        raise error from cause


def raised(error: Exception) -> Exception:
    """With a traceback and a cause."""
    with pytest.raises(type(error)) as caught:
        fail(error)
    return caught.value


def test_a_bug_leaves_a_file_with_all_that_helps(state: Path) -> None:
    error = bugs.explain(raised(ValueError("odd\nsecond line")), ["multiroot", "vm", "a b"])
    assert isinstance(error, BugError)
    assert error.exit_code == 70
    assert error.message == "this is a bug: ValueError: odd"
    (path,) = (state / "multiroot/bugs").iterdir()
    assert error.hint == f"please report it with {path}"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert "command: multiroot vm 'a b'" in text
    for piece in (
        "multiroot 0",
        "Python 3",
        os.uname().release,
        "grpcio 1",
        "KeyError: 'the cause'",
        __file__,
    ):
        assert piece in text


def test_each_bug_has_a_file_of_its_own(state: Path) -> None:
    for _ in range(3):
        bugs.explain(raised(KeyError("x")), [])
    assert len(list((state / "multiroot/bugs").iterdir())) == 3


def test_without_a_state_folder_the_file_goes_elsewhere(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (state / "multiroot").write_text("in the way")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(elsewhere))
    error = bugs.explain(raised(KeyError("x")), [])
    (path,) = elsewhere.iterdir()
    assert str(path) in error.hint
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(state / "multiroot"))
    assert bugs.explain(raised(KeyError("x")), []).hint == "its traceback could not be kept"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a"), "No space left on device: /a"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_the_computer_lacks_is_no_bug(state: Path, error: Exception, message: str) -> None:
    ours = bugs.explain(error, [])
    assert (type(ours), str(ours)) == (MultirootError, message)
    assert not (state / "multiroot").exists()


@pytest.mark.parametrize("words", [["--out", "/a/b"], ["--out=/a"], ["/a/b/c"]])
def test_what_is_wrong_with_a_path_that_somebody_gave_is_no_bug(words: list[str]) -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b/c")
    ours = bugs.explain(error, ["multiroot", *words])
    assert (type(ours), str(ours)) == (BadRequestError, "No such file or directory: /a/b/c")
    assert isinstance(bugs.explain(error, ["/a/b/c", "/", "..", "/b"]), BugError)


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = BadRequestError("no", "yes")
    assert bugs.explain(error, []) is error
    assert isinstance(bugs.explain(FileNotFoundError(errno.ENOENT, "No such file", "/a"), []), BugError)


@pytest.mark.parametrize(
    ("raises", "code", "line"),
    [
        ("KeyError('x')", 70, r"helper: this is a bug: KeyError: 'x' \(please report it with .*\)"),
        ("BadRequestError('no\\nway', 'go')", 2, r"helper: no way \(go\)"),
    ],
)
def test_a_helper_process_ends_with_one_line(raises: str, code: int, line: str) -> None:
    script = f"""
from multiroot import bugs
from multiroot.errors import BadRequestError
with bugs.one_line("helper"):
    raise {raises}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert re.fullmatch(line, done.stderr.strip())
