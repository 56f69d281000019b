# SPDX-License-Identifier: GPL-2.0-or-later
"""However a command is ended, what it has begun is taken down first."""

from __future__ import annotations

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
    print("begun", flush=True)
    try:
        yield
    finally:
        print("taken down", flush=True)

@main.cli.command("wait")
def wait():
    with begun():
        signal.pause()

main.LazyGroup.get_command = lambda self, context, name: self.commands.get(name)
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
