# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a whole: how commands end, and what --debug shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# A command that has begun something and waits.
COMMAND = """
import signal, sys
from contextlib import contextmanager
from multiroot.cli import main

@contextmanager
def begun():
    try:
        print("begun", flush=True)
        yield
    finally:
        print("taken down", flush=True)

@main.cli.command("wait")
def wait():
    with begun():
        print("begun", flush=True)
        signal.pause()

sys.argv = ["multiroot", "wait"]
main.main()
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


# A command that runs a program.
RUNS = """
import sys
from multiroot import proc
from multiroot.cli import main

@main.cli.command("work")
def work():
    proc.run(["true"])

main.main()
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
        assert lines[1].startswith("# true: exit code 0 after ")
