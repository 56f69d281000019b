# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m multiroot.lab.recorder STATE READY_FD`: keeps a lab machine's consoles and events, as long
as it lives.

QEMU connects to it with both serial ports and one monitor. It writes `console-old.log` and `console-
new.log` (lines of "<CLOCK_MONOTONIC ns> <text>", stamped when their first byte came) and `events.jsonl`
(QMP events), serves each console to any number of `lab console`s, and everything, line by line, as JSON
on `feed.sock`. It ends when QEMU does. One byte on READY_FD says that QEMU may start.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from multiroot import bugs

# Sockets in the state folder: QEMU connects to the first three, we to nobody.
OLD_SERIAL_SOCKET = "serial-old.sock"
NEW_SERIAL_SOCKET = "serial-new.sock"
RECORDER_QMP_SOCKET = "recorder-qmp.sock"
FEED_SOCKET = "feed.sock"
EVENTS_LOG = "events.jsonl"

_CHUNK = 1 << 16
_BACKLOG = 8 << 20  # bytes a listener may leave unread before it is dropped


def console_socket(root: str) -> str:
    return f"console-{root}.sock"


def console_log(root: str) -> str:
    return f"console-{root}.log"


def console_text(folder: Path, root: str) -> str:
    """What the log of a root's console holds so far, its lines ended by "\\n" alone.

    A line may hold a "\\r": the serial port loses a byte now and then, the "\\n" behind it, say. To read a
    file as text would make two lines of such a one.
    """
    log = folder / console_log(root)
    return log.read_bytes().decode(errors="replace") if log.exists() else ""


class Listeners:
    """Whoever is connected to one of our sockets and gets what we send there."""

    def __init__(self) -> None:
        self._writers: set[asyncio.StreamWriter] = set()

    def send(self, data: bytes) -> None:
        for writer in tuple(self._writers):
            if writer.transport.get_write_buffer_size() > _BACKLOG:
                self._writers.discard(writer)
                writer.transport.abort()
            else:
                writer.write(data)

    async def serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hear: Callable[[bytes], object],
    ) -> None:
        """Keep one of them until it hangs up; `hear` gets what it says."""
        self._writers.add(writer)
        while data := await _read(reader):
            hear(data)
        self._writers.discard(writer)
        writer.close()

    async def flush(self) -> None:
        await asyncio.gather(*(writer.drain() for writer in self._writers), return_exceptions=True)


class Feed(Listeners):
    """Sends JSON objects, a line each; what its listeners say is not heard."""

    def tell(self, message: dict[str, Any]) -> None:
        self.send(json.dumps(message).encode() + b"\n")


class Console:
    """One serial port: logged, fed, and joined to any number of terminals."""

    def __init__(self, root: str, log: Path, feed: Feed) -> None:
        self.root = root
        self.feed = feed
        self.log = log.open("ab", buffering=0)
        self.port: asyncio.StreamWriter | None = None
        self.terminals = Listeners()
        self.line = b""
        self.line_ns = 0

    async def serve_port(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """QEMU's end."""
        self.port = writer
        while data := await _read(reader):
            self.terminals.send(data)
            self.take(data, time.monotonic_ns())
        if self.line:
            self.take(b"\n", time.monotonic_ns())
        self.port = None
        writer.close()

    def type(self, data: bytes) -> None:
        """What a terminal sends goes to the root; without a machine there is nobody to take it."""
        if self.port:
            self.port.write(data)

    def take(self, data: bytes, now_ns: int) -> None:
        """Log complete lines; the rest waits for its end."""
        while data:
            if not self.line:
                self.line_ns = now_ns
            part, newline, data = data.partition(b"\n")
            self.line += part
            if newline:
                text = self.line.rstrip(b"\r")
                self.log.write(b"%d %s\n" % (self.line_ns, text))
                said = {"console": self.root, "text": text.decode(errors="replace")}
                self.feed.tell({"ns": self.line_ns, **said})
                self.line = b""


class Events:
    """QEMU's monitor: every event goes to the log and the feed."""

    def __init__(self, log: Path, feed: Feed) -> None:
        self.log = log.open("ab", buffering=0)
        self.feed = feed

    def add(self, name: str, data: dict[str, Any]) -> None:
        entry = {"ns": time.monotonic_ns(), "event": name, "data": data}
        self.log.write(json.dumps(entry).encode() + b"\n")
        self.feed.tell(entry)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"execute": "qmp_capabilities"}\n')
        buffer = b""
        while data := await _read(reader):
            *lines, buffer = (buffer + data).split(b"\n")
            for name, about in filter(None, map(event_of, lines)):
                self.add(name, about)
        writer.close()


def event_of(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Name and data of the event in a line of QEMU's monitor; None for the greeting, answers, rubbish."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = message.get("event") if isinstance(message, dict) else None
    data = message.get("data", {}) if name else {}
    return (name, data) if isinstance(name, str) and isinstance(data, dict) else None


async def record(state: Path, ready_fd: int) -> None:
    """Serve one machine until its monitor closes."""
    feed = Feed()
    events = Events(state / EVENTS_LOG, feed)
    ended = asyncio.Event()

    async def monitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await events.serve(reader, writer)
        finally:
            ended.set()

    for root, serial in (("old", OLD_SERIAL_SOCKET), ("new", NEW_SERIAL_SOCKET)):
        console = Console(root, state / console_log(root), feed)
        terminal = partial(console.terminals.serve, hear=console.type)
        await asyncio.start_unix_server(console.serve_port, state / serial)
        await asyncio.start_unix_server(terminal, state / console_socket(root))
    await asyncio.start_unix_server(monitor, state / RECORDER_QMP_SOCKET)
    await asyncio.start_unix_server(partial(feed.serve, hear=bytes), state / FEED_SOCKET)
    os.write(ready_fd, b"r")
    os.close(ready_fd)
    await ended.wait()
    events.add("EXIT", {})
    await feed.flush()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What came, nothing at the end; a peer that went away without closing is at its end too."""
    try:
        return await reader.read(_CHUNK)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    with bugs.one_line("recorder"):
        asyncio.run(record(Path(sys.argv[1]), int(sys.argv[2])))
