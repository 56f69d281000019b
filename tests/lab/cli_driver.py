# SPDX-License-Identifier: GPL-2.0-or-later
"""The command, run against a lab by tests."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from multiroot.demo import guests
from multiroot.lab import agents
from multiroot.lab.lab import Lab
from multiroot.rpc import client
from multiroot.rpc.v1 import vm_pb2

TIMEOUT = 540
CRASH_TIMEOUT = 60


class Running:
    """A command that has not ended yet."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        self._process = process
        self._fd = process.stdout.fileno()
        self._output = b""

    def wait_for(self, words: bytes) -> None:
        """Until it has printed these words again."""
        before = len(self._output)
        until = time.monotonic() + TIMEOUT
        while words not in self._output[before:]:
            ready = select.select([self._fd], [], [], max(until - time.monotonic(), 0))[0]
            data = os.read(self._fd, 1 << 16) if ready else b""
            assert data, f"ended or silent; it had said: {self._output[-400:]!r}"
            self._output += data

    def interrupt(self) -> None:
        """As Ctrl-C does, on a terminal of its own."""
        self._process.send_signal(signal.SIGINT)

    def output(self) -> bytes:
        """All that it has printed so far, as `wait_for` and `end` have read it."""
        return self._output

    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def end(self) -> int:
        """Its exit code, once it has ended."""
        until = time.monotonic() + TIMEOUT
        while select.select([self._fd], [], [], max(until - time.monotonic(), 0))[0]:
            if not (data := os.read(self._fd, 1 << 16)):
                return self._process.wait(TIMEOUT)
            self._output += data
        raise AssertionError(f"it does not end; it had said: {self._output[-400:]!r}")


class Cli:
    """The command as a person on the workstation uses it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._slowness = lab.state.machine.slowness

    @property
    def environment(self) -> dict[str, str]:
        """No test fails because this computer is slow: VMs may stand still, and roots come up, for long."""
        return {
            **os.environ,
            "MULTIROOT_AGENT": self.lab.state.agent_target,
            "MULTIROOT_DOWNTIME_LIMIT": "30000",
            "MULTIROOT_JOIN_TIMEOUT": str(round(480 * self._slowness)),
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "multiroot.cli.main", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT * self._slowness,
            check=False,
        )

    @contextmanager
    def started(self, *words: str) -> Iterator[Running]:
        """A command that runs during the body."""
        command = [sys.executable, "-m", "multiroot.cli.main", *words]
        with subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                yield Running(process)
            finally:
                process.kill()

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def data(self, *words: str) -> object:
        return json.loads(self.ok(*words, "--json"))

    def lab_data(self, *words: str, root: str = "old") -> Any:
        """What a command says that is run in a root."""
        done = self.lab.run(["multiroot", *words, "--json"], root=root)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, code: int, says: str, *words: str) -> None:
        """The command ends with `code` and one line that says `says`, and nothing is different afterwards."""
        before = self.standing()
        self.fails(code, says, *words)
        after = self.standing()
        assert after == before, (before, after)

    def fails(self, code: int, says: str, *words: str) -> None:
        """The command ends with `code` and one line that says `says`."""
        done = self.run(*words)
        lines = [line for line in done.stderr.splitlines() if line.startswith("multiroot: ")]
        assert len(lines) == 1, done.stderr
        assert says in lines[0], done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr

    def goes_on(self, name: str, *, root: str | None = None, more: int = 10) -> vm_pb2.Ticks:
        """Wait for so many more ticks of a guest; all that the root has seen of it by then. Without `root` it
        is the one that answers here."""
        with client.connect(self.lab.agent_address, root=root) as channel:
            seen = len(agents.ticks(channel, name, 0, guests.BOOT_TIMEOUT).counter)
            return agents.ticks(channel, name, seen + more, guests.BOOT_TIMEOUT)

    def crash_new_root(self) -> None:
        """Its kernel panics; back as soon as the old root has seen the end of it."""
        # Nobody waits for the answer of a kernel that is to die: it comes first.
        crash = "(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"
        self.lab.run(["sh", "-c", crash], root="new")
        until = time.monotonic() + CRASH_TIMEOUT * self._slowness
        while self.peer_states() != ["parked"]:
            assert time.monotonic() < until, self.peer_states()

    def peer_states(self) -> list[str]:
        """What the old root has seen of the other ones."""
        shown = self.data("root", "show", "old")
        assert isinstance(shown, dict)
        return [peer["state"] for peer in shown["peers"]]

    def standing(self) -> object:
        """What must not change by a refusal: CPUs and memory of all roots, and all VMs."""
        roots = self.data("root", "list")
        assert isinstance(roots, list)
        kept = ("root", "boot_id", "cpus", "memory")
        return [{key: root[key] for key in kept} for root in roots], self.data("vm", "list")
