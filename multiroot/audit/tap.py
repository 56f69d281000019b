# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns a lab machine's memory trace on and off and reads it as it comes, through a pipe: never on disk."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import re
import select
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from multiroot.audit import trace
from multiroot.audit.trace import Access
from multiroot.errors import MultirootError
from multiroot.lab.machine import QMP_SOCKET
from multiroot.units import MIB
from multiroot.vm.qemu.qmp import Qmp

PIPE = "trace.pipe"
_CHUNK = 1 << 16
_LOGICAL = re.compile(r"LDR 0x([0-9a-f]{2})\b")

Sink = Callable[[Access], None]


class Stream:
    """Bytes of the trace in, accesses out, and between them what is to be done at marks."""

    def __init__(self, sink: Sink) -> None:
        self.received = 0  # bytes
        self._sink = sink
        self._pending = b""
        self._marks: list[tuple[int, Callable[[], None]]] = []

    def mark(self, at: int, action: Callable[[], None]) -> None:
        """Call `action` when all lines that end within the first `at` bytes have been given out."""
        self._marks.append((at, action))
        self._reach(self.received - len(self._pending))

    def feed(self, data: bytes) -> None:
        """The next bytes, cut anywhere. TraceError for a line that can't be read."""
        at = self.received - len(self._pending)
        self.received += len(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            at += len(line) + 1
            self._reach(at - 1)
            access = trace.parse(line)
            if access:
                self._sink(access)
        self._reach(at)

    def _reach(self, at: int) -> None:
        while self._marks and self._marks[0][0] <= at:
            self._marks.pop(0)[1]()


class Tap:
    """Gives each access of a machine to `sink`, in order, from a thread of its own.

    QEMU waits when it is read too slowly, so nothing is lost. If `sink` or the reading fails, the rest is
    thrown away (QEMU must not stand still) and the failure is raised by `mark` or at the end.
    """

    def __init__(self, folder: Path, sink: Sink) -> None:
        self._path = folder / PIPE
        self._socket = folder / QMP_SOCKET
        self._lock = threading.Lock()  # of all below
        self._stream = Stream(sink)
        self._failure: Exception | None = None

    @property
    def received(self) -> int:
        """Bytes of trace so far."""
        return self._stream.received

    @contextmanager
    def open(self) -> Iterator[None]:
        """Trace while the body runs. Raises MultirootError when the trace could not be judged whole."""
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        # Read and write: the pipe does not end when QEMU closes its side, and QEMU never waits for a reader.
        pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, MIB)
        wake, end = os.pipe()
        reader = threading.Thread(target=self._read, args=(pipe, wake), name="trace")
        self._pipe = pipe
        reader.start()
        try:
            asyncio.run(_switch(self._socket, self._path))
            try:
                yield
            finally:
                asyncio.run(_switch(self._socket, None))
        finally:
            os.close(end)
            reader.join()
            os.close(wake)
            os.close(pipe)
            self._path.unlink()
        self._check()

    def mark(self, action: Callable[[], None]) -> None:
        """Have `action` called between what the machine has done by now and what comes after."""
        with self._lock:
            self._check()
            waiting = array.array("i", [0])
            fcntl.ioctl(self._pipe, termios.FIONREAD, waiting)
            self._stream.mark(self._stream.received + waiting[0], action)

    def _check(self) -> None:
        if self._failure:
            raise MultirootError(f"the trace was not judged to its end: {self._failure}") from self._failure

    def _read(self, pipe: int, wake: int) -> None:
        ended = False
        while not ended:
            readable, _, _ = select.select([pipe, wake], [], [])
            # Told to end, with QEMU's trace off: what is in the pipe is the rest.
            ended = pipe not in readable and wake in readable
            with self._lock:
                data = os.read(pipe, _CHUNK) if pipe in readable else b""
                try:
                    if not self._failure:
                        self._stream.feed(data)
                except Exception as error:  # noqa: BLE001  # of any kind: it is raised where the tap was opened
                    self._failure = error


def logical_ids(folder: Path, cpus: int) -> dict[int, int]:
    """Each CPU's logical APIC id as it is now, for interrupts that are sent to logical destinations."""
    return asyncio.run(_logical_ids(folder / QMP_SOCKET, cpus))


async def _logical_ids(socket: Path, cpus: int) -> dict[int, int]:
    found = {}
    async with _Monitor(socket) as monitor:
        for cpu in range(cpus):
            said = await monitor.human(f"info lapic {cpu}")
            match = _LOGICAL.search(said)
            if match is None:
                raise MultirootError(f"QEMU does not say what LAPIC {cpu} is set to", said.strip()[:100])
            found[cpu] = int(match[1], 16)
    return found


async def _switch(socket: Path, to: Path | None) -> None:
    """Trace to the pipe `to`, or (None) no more. The log backend of QEMU is on while its events are."""
    async with _Monitor(socket) as monitor:
        if to:
            await monitor.human(f"logfile {to}")
        for event in trace.EVENTS:
            await monitor.qmp.execute("trace-event-set-state", name=event, enable=to is not None)
        if not to:
            await monitor.human("logfile /dev/null")


class _Monitor:
    """QEMU's monitor for a moment: it takes one client at a time."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.qmp = Qmp("audit", lambda _: time.monotonic_ns())

    async def __aenter__(self) -> _Monitor:
        await self.qmp.connect(self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.qmp.disconnect()

    async def human(self, command: str) -> str:
        """A command that QMP has no word for; QEMU answers errors as text."""
        return str(await self.qmp.execute("human-monitor-command", command_line=command))
