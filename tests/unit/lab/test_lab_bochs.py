# SPDX-License-Identifier: GPL-2.0-or-later
"""A console of an emulated machine, with a thread in the machine's place; what the emulator's log tells."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from multiroot.errors import PeerLostError, WaitTimeoutError
from multiroot.lab.bochs import Console, resets_told

Answer = Callable[[str], str]
NOISE = "[    1.0] a kernel message\r\n"
START = "00000000000i[SYS   ] bx_pc_system_c::Reset(HARDWARE) called\n"


class Machine:
    """Echoes what is typed, a character at a time; a whole line gets an answer."""

    def __init__(self, console: Console, answer: Answer) -> None:
        self.longest = 0
        self._fd = os.open(console.device, os.O_RDWR | os.O_NOCTTY)
        self._answer = answer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        line = ""
        while data := os.read(self._fd, 100).decode():
            if "\0" in data:
                return
            self.longest = max(self.longest, len(data))
            for character in data:
                os.write(self._fd, {"\n": b"\r\n"}.get(character, character.encode()))
                line += character
            if line.endswith("\n"):
                os.write(self._fd, self._answer(line).encode())
                line = ""

    def end(self, console: Console) -> None:
        os.write(console._master, b"\0")
        self._thread.join()
        os.close(self._fd)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    """The emulator gets a second of CPU time between two looks at it."""
    ticks = count()
    console = Console("com1", tmp_path / "com1.log", lambda: float(next(ticks)))
    yield console
    console.close()


def shell(output: str, code: int) -> Answer:
    """Ends a command with its mark, as the shell does."""

    def answer(line: str) -> str:
        number = line.rpartition("''=")[2].partition(":")[0]
        return f"{output}=={number}:{code}=\r\n# "

    return answer


def test_a_command_has_its_output_and_exit_code(console: Console, tmp_path: Path) -> None:
    machine = Machine(console, shell("one\r\ntwo\r\n", 3))
    done = console.run("a command that is longer than the port's buffer", 30)
    again = console.run("another", 30)
    machine.end(console)
    assert (done.stdout, done.returncode) == ("one\ntwo\n", 3)
    assert again.stdout == "one\ntwo\n"
    assert machine.longest <= 16, "the emulated port has room for 16 bytes"
    assert b"one" in (tmp_path / "com1.log").read_bytes()


def test_what_is_not_said_in_time_is_an_error(console: Console) -> None:
    with pytest.raises(WaitTimeoutError, match="com1 did not say 'never' in 2 s"):
        console.wait("never", 2)


def test_what_was_said_before_does_not_count(console: Console) -> None:
    machine = Machine(console, lambda line: "")
    console.type("word")
    console.wait("word", 10)
    with pytest.raises(WaitTimeoutError):
        console.wait("word", 2, since=len(console.text()))
    machine.end(console)


def test_the_end_of_the_machine_ends_the_wait(tmp_path: Path) -> None:
    console = Console("com1", tmp_path / "com1.log", lambda: 0.0)
    closing = threading.Timer(0.1, console.close)
    closing.start()
    with pytest.raises(PeerLostError, match="the machine has ended"):
        console.wait("never", 1)
    closing.join()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", 0),
        ("00000000100i[CPU0  ] something else\n", 0),
        (START, 1),
        ("00031i[SYS   ] bx_pc_system_c::Reset(SOFTWARE) called\n", 1),
        ("00031p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution\n", 1),
    ],
)
def test_resets_are_told_of_but_not_the_start(more: str, told: int) -> None:
    assert len(resets_told(START + more)) == told
