# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs tests inside an emulated workstation, and hears how they end (`verdicts.py` says it there)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.lab import lab, paths, state, workstation
from multiroot.phases import Phases

# For the pytest inside. Its time for one test, or a test's own, ends before the silence below, and shows
# where the test stood.
INSIDE = ("-m", "not long", "-v", "--color=no", "--accel=kvm", "--timeout=900", "-pno:cacheprovider")
# Seconds, many times what was seen: from the start until pytest's first word, and from one word to the next.
BOOT_S = 300.0
SILENCE_S = 2500.0
_CONNECT_S = 60.0
_END_S = 30.0
_CONSOLE_TAIL = 6000  # characters


class WorkstationError(AssertionError):
    """The workstation ended, or said nothing for too long."""


@dataclass(frozen=True)
class Verdict:
    """How one test ended inside; `text` is what it recorded, or what was seen of one that did not pass."""

    test: str
    outcome: str
    seconds: float
    text: str = ""


def function_of(test: str) -> str:
    """The node id without parameters."""
    return test.partition("[")[0]


class Port:
    """A serial port of the workstation, which is QEMU's end of a socket. All that comes goes to `log`."""

    def __init__(self, path: Path, log: Path) -> None:
        self.path = path
        self.log = log
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(1)
        self._listening.settimeout(_CONNECT_S)

    def read(self, hear: Callable[[str], None]) -> None:
        """Until the workstation ends; `hear` gets each line."""
        try:
            connection, _ = self._listening.accept()
        except TimeoutError:
            return  # QEMU has ended before, and its log says why
        finally:
            self._listening.close()
        connection.settimeout(None)
        rest = b""
        with connection, self.log.open("ab", buffering=0) as log:
            while data := connection.recv(1 << 16):
                log.write(data)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    hear(line.decode(errors="replace").strip("\r"))


class Workstation:
    """Runs these tests, node ids of functions, one after the other. `end` ends it before its time."""

    def __init__(self, tests: Sequence[str]) -> None:
        parts = workstation.prepare(lab.cache(Phases("workstation")))
        self.folder = paths.make_dir(state.folder(f"test-{os.getpid()}-kvm"))
        arguments = self.folder / "arguments"
        arguments.write_text("".join(f"{word}\n" for word in (*INSIDE, *tests)))
        self._qemu_log = self.folder / "qemu.log"
        self._news = threading.Condition()
        self._expected: list[str] | None = None
        self._verdicts: dict[str, Verdict] = {}
        self._broken = ""
        self._running = "its boot"
        self._over = False
        console, verdicts = (
            Port(self.folder / f"{name}.sock", self.folder / f"{name}.log")
            for name in ("console", "verdicts")
        )
        self._console = console.log
        argv = workstation.argv(parts, arguments, console.path, verdicts.path)
        self._qemu = proc.spawn(argv, log=self._qemu_log)
        self._until = time.monotonic() + BOOT_S
        hears = ((console, lambda _: None), (verdicts, self._hear))
        self._readers = [threading.Thread(target=port.read, args=(hear,)) for port, hear in hears]
        self._watch = threading.Thread(target=self._wait)
        for thread in (*self._readers, self._watch):
            thread.start()

    def verdicts(self, function: str) -> list[Verdict]:
        """How a test ended, with each of its parameters. Raises WorkstationError when nobody will tell."""
        with self._news:
            while not (found := self._complete(function)):
                if self._broken or self._over:
                    raise WorkstationError(
                        f"{self._broken or 'the workstation ended'}, at {self._running}{self._seen()}"
                    )
                left = self._until - time.monotonic()
                if left <= 0:
                    raise WorkstationError(
                        f"the workstation was silent for too long, at {self._running}{self._seen()}"
                    )
                self._news.wait(left)
            return found

    def end(self, *, keep_logs: bool) -> None:
        """It may still be at work, if a test outside was interrupted."""
        self._qemu.terminate()
        try:
            self._qemu.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
        self._watch.join(_END_S)
        if not keep_logs:
            shutil.rmtree(self.folder)

    def _complete(self, function: str) -> list[Verdict]:
        """All verdicts on a test, or none as long as some are missing."""
        if self._expected is None:
            return []
        wanted = [each for each in self._expected if function_of(each) == function]
        if not wanted:
            self._broken = self._broken or f"inside there is no test {function}"
        return (
            [self._verdicts[each] for each in wanted]
            if all(each in self._verdicts for each in wanted)
            else []
        )

    def _hear(self, line: str) -> None:
        message = json.loads(line)
        with self._news:
            self._until = time.monotonic() + SILENCE_S
            if "tests" in message:
                self._expected = message["tests"]
            elif "broken" in message:
                self._broken = f"{message['broken']} cannot be imported inside: {message['text']}"
            elif "started" in message:
                self._running = message["started"]
            elif "test" in message:
                self._verdicts[message["test"]] = Verdict(**message)
            self._news.notify_all()

    def _wait(self) -> None:
        self._qemu.wait()
        for reader in self._readers:
            reader.join()
        with self._news:
            self._over = True
            self._news.notify_all()

    def _seen(self) -> str:
        """The last words of the console and of QEMU."""
        logs = [
            path.read_text(errors="replace")[-_CONSOLE_TAIL:]
            for path in (self._console, self._qemu_log)
            if path.exists()
        ]
        return "\n".join(("", *logs, f"logs are in {self.folder}"))
