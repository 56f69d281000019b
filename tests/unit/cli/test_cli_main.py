# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a whole: how commands end, and what --debug shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Run

from multiroot.cli import program

# A command that has begun something and waits.
COMMAND = """
import signal, sys
from contextlib import contextmanager
from multiroot.cli import program

@contextmanager
def begun():
    try:
        yield
    finally:
        print("taken down", flush=True)

@program.cli.command("wait")
def wait():
    with begun():
        print("begun", flush=True)
        signal.pause()

sys.argv = ["multiroot", "wait"]
program.main()
"""


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_signal_takes_down_what_was_begun(number: signal.Signals, word: str, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (out, err.strip(), process.returncode) == ("taken down\n", f"multiroot: {word}", code)


@pytest.mark.parametrize(("module", "words"), [("click", ()), ("grpc", ("vm", "list"))])
def test_who_leaves_while_python_imports_sees_one_line(
    module: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    """Proves that Ctrl-C is no traceback in the import of what all commands need, or of what one needs."""
    (tmp_path / f"{module}.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    package = Path(program.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "multiroot.cli.main", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, package)))},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "multiroot: interrupted"


# A command that waits for what an agent does.
CALLS = """
import signal
from multiroot.cli import program
from multiroot.cli.calls import progress_call

def events():
    print("begun", flush=True)
    signal.pause()
    yield

@program.cli.command("work")
def work():
    progress_call(events(), wanted=["updated"])

program.main()
"""


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_who_leaves_an_agent_at_work_is_told_so(number: signal.Signals, word: str, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLS, "work"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    said = f"multiroot: {word}; the agent goes on with it: `multiroot update show` shows it"
    assert (err.splitlines()[-1], process.returncode) == (said, code)


# A command that runs a program.
RUNS = """
import sys
from multiroot import proc
from multiroot.cli import program

@program.cli.command("work")
def work():
    proc.run(["true"])

program.main()
"""


@pytest.mark.parametrize(
    ("words", "variable", "shown"),
    [((), "", False), (("--debug",), "", True), ((), "1", True), ((), "0", False)],
)
def test_debug_shows_the_programs_that_are_run(words: tuple[str, ...], variable: str, shown: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUNS, *words, "work"],
        env={**os.environ, "MULTIROOT_DEBUG": variable}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert bool(lines) is shown
    if shown:
        assert lines[0] == "true"
        assert lines[1].startswith("# true: exited with 0 after ")


# A command that does something nobody expects.
ODD = """
import os, sys
from multiroot.cli import program

@program.cli.command("odd")
def odd():
    {what}

program.main()
"""


def odd(what: str, tmp_path: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ODD.format(what=what), *words, "odd"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONUTF8": "1", "MULTIROOT_DEBUG": ""},
        stderr=subprocess.PIPE, text=True, check=False, **{"stdout": subprocess.PIPE, **more},
    )  # fmt: skip


def test_what_nobody_expected_is_one_line_and_a_file(tmp_path: Path) -> None:
    done = odd("raise KeyError('x')", tmp_path)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith("multiroot: this is a bug: KeyError: 'x' (please report it with ")
    assert done.stderr.count("\n") == 1
    (log,) = (tmp_path / "multiroot/bugs").iterdir()
    assert str(log) in done.stderr
    assert "Traceback (most recent call last)" in log.read_text()


def test_debug_shows_the_traceback_too(tmp_path: Path) -> None:
    done = odd("raise KeyError('x')", tmp_path, "--debug")
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("multiroot: this is a bug: ")


def test_words_that_are_no_text_are_refused(tmp_path: Path) -> None:
    done = odd("pass", tmp_path, "--\udcff")
    assert done.returncode == 2
    assert done.stderr == "multiroot: not valid UTF-8: '--\\udcff' (give it another name)\n"


def test_a_full_disk_behind_stdout_is_said_so(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = odd("print('x' * 100)", tmp_path, stdout=full)
    assert (done.returncode, done.stderr) == (1, "multiroot: No space left on device\n")


def test_text_that_stdout_cannot_say_is_no_bug(tmp_path: Path) -> None:
    done = odd("print('\\u20ac \\udce9')", tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("\u20ac ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("root", "launch"), "--kernel is missing (`multiroot root launch --help`)"),
        (("vm", "nonsense"), "there is no command nonsense (`multiroot vm --help`)"),
        (("vm", "runn"), "there is no command runn; did you mean run? (`multiroot vm --help`)"),
        (("vm", "show"), "NAME is missing (`multiroot vm show --help`)"),
        (("demo", "--vmz", "2"), "there is no option --vmz; did you mean --vms? (`multiroot demo --help`)"),
        (("demo", "--vms"), "--vms needs a value"),
        (("demo", "--keep=1"), "--keep takes no value"),
        (("demo", "--vms", "x"), "--vms: 'x' is no whole number (`multiroot demo --help`)"),
        (("demo", "--vms", "17"), "--vms: 17 is no number from 1 to 16 (`multiroot demo --help`)"),
        (("completion", "x"), "SHELL: 'x' is none of bash, zsh, fish (`multiroot completion --help`)"),
        (("vm", "show", "a", "b"), "there is no use for: b (`multiroot vm show --help`)"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_line(run: Run, words: tuple[str, ...], line: str) -> None:
    done = run(*words)
    assert (done.code, done.out, done.err) == (2, "", f"multiroot: {line}\n")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("plan", "show", "--cpus", ""), "--cpus"),
        (("plan", "show", "--carve="), "--carve"),
        (("bench", "handoff", "--contenders", ""), "--contenders"),
        (("bench", "launch", "--out", ""), "--out"),
        (("root", "adopt", "--device", ""), "--device"),
        (("vm", "list", "--root", ""), "--root"),
        (("handoff", "cancel", ""), "VM"),
        (("vm", "show", ""), "NAME"),
    ],
)
def test_an_empty_word_is_not_taken_for_the_default(run: Run, words: tuple[str, ...], name: str) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"multiroot: {name} is empty: leave it out, or say what it is (")


def test_an_empty_command_line_of_a_kernel_is_one(run: Run) -> None:
    assert "empty" not in run("root", "launch", "--kernel", "6.12", "--append", "").err
    assert "empty" not in run("vm", "edit", "web", "--device", "").err


@pytest.mark.parametrize("words", [("demo", "--live"), ("lab", "ui")])
def test_what_runs_on_the_workstation_says_so_inside_a_root(words: tuple[str, ...]) -> None:
    # A root's image has no pydantic, and nothing that is built on it works there.
    code = "import sys; sys.modules['pydantic'] = None; from multiroot.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("multiroot: this needs pydantic, which is not installed here (")
    assert "multiroot watch" in line
