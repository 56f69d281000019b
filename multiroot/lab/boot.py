# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a lab machine and its recorder, waits until it is ready, retries a boot that hangs; ends a
machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiroot import proc, processes
from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.lab import lab_disks, paths, state
from multiroot.lab.machine import Machine, make_disks, qemu_argv
from multiroot.lab.recorder import FEED_SOCKET
from multiroot.lab.state import Attempt, LabState
from multiroot.lab.watchdog import GONE, Limits, Watchdog
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases

ATTEMPTS = 4
QEMU_LOG = "qemu.log"  # in the state folder
_PORT_TAKEN = "Could not set up host forwarding rule"  # QEMU: net/slirp.c
_RECORDER_START = 30.0  # seconds
_END = 20.0  # seconds QEMU may take to end after it was told to
_RECORDER_END = 1.0  # seconds the recorder may take to notice that QEMU has ended


class BootError(MultirootError):
    """No attempt made the machine ready."""


class Feed:
    """The recorder's feed: JSON messages, as they come."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._buffer = b""

    def close(self) -> None:
        self._socket.close()

    def wait(self, until_ns: int) -> list[dict[str, Any]] | None:
        """Messages that came; empty at `until_ns` (CLOCK_MONOTONIC), None when the recorder ended."""
        timeout = max(until_ns - time.monotonic_ns(), 0) / 1e9
        if not select.select([self._socket], [], [], timeout)[0]:
            return []
        data = self._socket.recv(1 << 16)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]


def up(
    machine: Machine,
    image_digest: str,
    phases: Phases,
    *,
    limits: Limits | None = None,
    attempts: int = ATTEMPTS,
) -> LabState:
    """Boot `machine` until its old root takes commands, in so many attempts. Raises ConflictError when it
    runs already or another machine has a disk of its, BootError.
    """
    with _lab_lock(machine.name), ExitStack() as stack:
        if machine.name in state.names() and state.load(machine.name).alive():
            raise ConflictError(f"lab {machine.name!r} is running already", "'multiroot lab down' ends it")
        disks = stack.enter_context(lab_disks.locked(machine.disks))
        lab = state.create(machine, image_digest)
        make_disks(machine)
        lab_disks.provide(machine.disks, phases)
        for number in range(1, attempts + 1):
            with phases.phase(PhaseName.BOOT, kernel=machine.release, attempt=number) as attributes:
                try:
                    attempt = _boot_once(lab, limits or Limits(), disks)
                except BaseException:
                    # Whoever ends the command does not know of a machine that is not up yet.
                    _end(lab)
                    raise
                attributes["outcome"] = attempt.outcome
            lab.attempts.append(attempt)
            lab.save()
            if attempt.outcome == "ready":
                return lab
            _end(lab)
            if attempt.final:
                raise BootError(f"lab {machine.name!r} cannot boot: {attempt.outcome}", _logs(lab))
    tried = f"in {attempts} attempts, at last" if attempts > 1 else "at the only attempt"
    raise BootError(
        f"lab {machine.name!r} did not boot {tried}: {lab.attempts[-1].outcome}",
        _logs(lab),
    )


def free_ports() -> tuple[int, int]:
    """Two loopback ports that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def down(lab: LabState) -> bool:
    """End the machine; False when it did not run. Logs stay until the next `up`."""
    with _lab_lock(lab.machine.name):
        return _end(lab)


def _logs(lab: LabState) -> str:
    return f"its console is in {lab.folder}, what QEMU said in {lab.folder / QEMU_LOG}"


def _boot_once(lab: LabState, limits: Limits, disks: tuple[int, ...]) -> Attempt:
    """The machine has these descriptors as long as it runs."""
    _start_recorder(lab)
    with closing(Feed(lab.folder / FEED_SOCKET)) as feed:
        start = time.monotonic_ns()
        (lab.folder / QEMU_LOG).unlink(missing_ok=True)
        qemu = proc.spawn(qemu_argv(lab.machine), log=lab.folder / QEMU_LOG, pass_fds=disks)
        lab.pid, lab.started = qemu.pid, processes.start_time(qemu.pid)
        lab.save()
        outcome = _watch(feed, Watchdog(limits, start), qemu)
    seconds = round((time.monotonic_ns() - start) / 1e9, 3)
    return Attempt(outcome, seconds) if outcome else _refused(lab, qemu.returncode, seconds)


def _refused(lab: LabState, code: int, seconds: float) -> Attempt:
    """QEMU ended by itself, and will do so again. If only a port was taken, the lab gets others."""
    said = (lab.folder / QEMU_LOG).read_text(errors="replace").strip()
    port_taken = _PORT_TAKEN in said
    if port_taken:
        agent_port, exec_port = free_ports()
        lab.machine = replace(lab.machine, agent_port=agent_port, exec_port=exec_port)
    return Attempt(
        f"QEMU {proc.how_ended(code)}: {said[-300:] or 'no output'}", seconds, final=not port_taken
    )


def _watch(feed: Feed, watchdog: Watchdog, qemu: subprocess.Popen[bytes]) -> str:
    """The watchdog's verdict; "" when QEMU ended by itself before there was one."""
    # Looked at now and then besides: a QEMU that refuses its command line never connects to the recorder.
    glance_ns = 500_000_000
    while True:
        now = time.monotonic_ns()
        verdict = watchdog.verdict(now)
        if verdict:
            return "" if verdict == GONE and qemu.wait(_END) else verdict
        messages = feed.wait(min(watchdog.deadline_ns(), now + glance_ns))
        for message in messages or []:
            watchdog.take(message)
        if qemu.poll() is not None and not messages:
            return ""


def _start_recorder(lab: LabState) -> None:
    folder = lab.folder
    for socket_path in folder.glob("*.sock"):
        socket_path.unlink()
    reader, writer = os.pipe()
    argv = [sys.executable, "-m", "multiroot.lab.recorder", str(folder), str(writer)]
    log = folder / "recorder.log"
    process = proc.spawn(argv, log=log, pass_fds=[writer], cwd=paths.source_dir())
    lab.recorder_pid, lab.recorder_started = process.pid, processes.start_time(process.pid)
    os.close(writer)
    ready = select.select([reader], [], [], _RECORDER_START)[0] and os.read(reader, 1)
    os.close(reader)
    if not ready:
        raise WaitTimeoutError("the lab's recorder did not start", f"see {log}")


def wait_end(lab: LabState, timeout: float) -> None:
    """Wait until the machine and its recorder have ended by themselves; raises WaitTimeoutError."""
    for pid, started in ((lab.pid, lab.started), (lab.recorder_pid, lab.recorder_started)):
        if not _gone(pid, started, timeout):
            raise WaitTimeoutError(f"lab {lab.machine.name!r} still runs after {timeout:g} s")


def _end(lab: LabState) -> bool:
    """Tell QEMU to end, the hard way if it does not listen; the recorder ends with it. False if none ran."""
    ran = lab.alive()
    if ran:
        for number in (signal.SIGTERM, signal.SIGKILL):
            processes.send(lab.pid, number, start=lab.started)
            if _gone(lab.pid, lab.started, _END):
                break
    if not _gone(lab.recorder_pid, lab.recorder_started, _RECORDER_END):
        # It waits for the monitor of a QEMU that ended before it had one.
        processes.send(lab.recorder_pid, signal.SIGTERM, start=lab.recorder_started)
    wait_end(lab, _END)
    return ran


def _gone(pid: int, started: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the end of a process that started at `started`; pid 0 is none."""
    return not pid or processes.wait_end(pid, timeout, started)


@contextmanager
def _lab_lock(name: str) -> Iterator[None]:
    """One `up` or `down` of a lab at a time."""
    folder = paths.make_dir(state.folder(name).parent)
    with (folder / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"lab {name!r} is being started or ended by another command") from error
        yield
