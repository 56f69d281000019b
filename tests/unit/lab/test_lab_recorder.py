# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder: stamped logs, the feed, consoles passed on, QMP events; over real sockets, with us as
QEMU.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from anything import json_with
from hypothesis import given
from hypothesis import strategies as st

from multiroot.lab import recorder
from multiroot.lab.recorder import (
    NEW_SERIAL_SOCKET,
    OLD_SERIAL_SOCKET,
    RECORDER_QMP_SOCKET,
    Console,
    Feed,
)

ANY_JSON = json_with("event", "data", "return")


class ListFeed(Feed):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, object]] = []

    def tell(self, message: dict[str, object]) -> None:
        self.sent.append(message)


def test_a_line_is_stamped_when_it_began(tmp_path: Path) -> None:
    feed = ListFeed()
    console = Console("old", tmp_path / "log", feed)
    console.take(b"first\r\nsec", 100)
    console.take(b"ond", 200)
    console.take(b"\nthird\n", 300)
    assert (tmp_path / "log").read_bytes() == b"100 first\n100 second\n300 third\n"
    assert [(message["ns"], message["text"]) for message in feed.sent] == [
        (100, "first"),
        (100, "second"),
        (300, "third"),
    ]


def test_bytes_that_are_no_text_are_logged_as_they_are(tmp_path: Path) -> None:
    feed = ListFeed()
    Console("new", tmp_path / "log", feed).take(b"\xff\x00!\n", 1)
    assert (tmp_path / "log").read_bytes() == b"1 \xff\x00!\n"
    assert feed.sent[0]["text"] == "\ufffd\x00!"


@dataclass
class Pipe:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, path: Path) -> Pipe:
        return cls(*await asyncio.open_unix_connection(path))

    async def line(self) -> dict[str, object]:
        message: dict[str, object] = json.loads(await self.reader.readline())
        return message

    def send(self, data: bytes) -> None:
        self.writer.write(data)


@pytest_asyncio.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """The recorder running for a state folder; it must end by itself."""
    reader, writer = os.pipe()
    # Relative paths: those of pytest may be too long for sockets.
    before = Path.cwd()
    os.chdir(tmp_path)
    task = asyncio.create_task(recorder.record(Path(), writer))
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, os.read, reader, 1) == b"r"
    os.close(reader)
    yield Path()
    await asyncio.wait_for(task, 10)
    os.chdir(before)


async def qemu(folder: Path) -> tuple[Pipe, Pipe, Pipe]:
    new, old = await Pipe.to(folder / NEW_SERIAL_SOCKET), await Pipe.to(folder / OLD_SERIAL_SOCKET)
    monitor = await Pipe.to(folder / RECORDER_QMP_SOCKET)
    monitor.send(b'{"QMP": {}}\n')
    assert await monitor.line() == {"execute": "qmp_capabilities"}
    return new, old, monitor


async def test_consoles_events_and_the_end(folder: Path) -> None:
    feed = await Pipe.to(folder / recorder.FEED_SOCKET)
    terminal = await Pipe.to(folder / recorder.console_socket("old"))
    new, old, monitor = await qemu(folder)

    old.send(b"hello\r\n")
    assert await terminal.reader.readline() == b"hello\r\n"
    said = await feed.line()
    assert (said["console"], said["text"]) == ("old", "hello")

    terminal.send(b"ls\n")
    assert await old.reader.readline() == b"ls\n"

    new.send(b"from the new root\n")
    assert (await feed.line())["console"] == "new"

    monitor.send(b'{"return": {}}\n{"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}\n')
    event = await feed.line()
    assert (event["event"], event["data"]) == ("SHUTDOWN", {"reason": "guest-reset"})

    for pipe in (new, old, monitor):
        pipe.writer.close()
    assert (await feed.line())["event"] == "EXIT"
    log = (folder / recorder.EVENTS_LOG).read_text().splitlines()
    assert [json.loads(line)["event"] for line in log] == ["SHUTDOWN", "EXIT"]


async def test_a_terminal_that_leaves_does_not_hurt(folder: Path) -> None:
    feed = await Pipe.to(folder / recorder.FEED_SOCKET)
    terminal = await Pipe.to(folder / recorder.console_socket("new"))
    pipes = await qemu(folder)
    terminal.writer.close()
    for number in range(3):
        pipes[0].send(b"line %d\n" % number)
        assert (await feed.line())["text"] == f"line {number}"
    for pipe in pipes:
        pipe.writer.close()
    assert (await feed.line())["event"] == "EXIT"


@pytest.mark.parametrize("root", ["old", "new"])
def test_names_of_sockets_and_logs_differ_by_root(root: str) -> None:
    assert root in recorder.console_socket(root)
    assert root in recorder.console_log(root)


def test_a_line_that_lost_its_end_on_the_serial_port_stays_one_line(tmp_path: Path) -> None:
    (tmp_path / recorder.console_log("old")).write_bytes(b"1 one\xff\r[ 0.1] two\n2 three\n")
    assert recorder.console_text(tmp_path, "old").split("\n") == ["1 one\ufffd\r[ 0.1] two", "2 three", ""]
    assert recorder.console_text(tmp_path, "new") == ""


async def test_a_listener_that_does_not_read_is_dropped(folder: Path) -> None:
    pipes = await qemu(folder)
    lazy = await Pipe.to(folder / recorder.FEED_SOCKET)
    lazy.reader._limit = 1  # type: ignore[attr-defined]  # stop taking data from the socket
    feed = await Pipe.to(folder / recorder.FEED_SOCKET)
    line = b"x" * 4000 + b"\n"
    for _ in range(recorder._BACKLOG // len(line) * 2):
        pipes[1].send(line)
        await pipes[1].writer.drain()
        await feed.line()
    while await lazy.reader.read(1 << 20):
        pass
    for pipe in pipes:
        pipe.writer.close()
    assert (await feed.line())["event"] == "EXIT"


@given(st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_of_the_monitor_is_an_event_or_passed_over(line: bytes) -> None:
    event = recorder.event_of(line)
    assert event is None or (isinstance(event[0], str) and isinstance(event[1], dict))


def test_events_are_found() -> None:
    assert recorder.event_of(b'{"event": "STOP", "data": {"a": 1}}') == ("STOP", {"a": 1})
    assert recorder.event_of(b'{"event": "STOP"}') == ("STOP", {})
    assert recorder.event_of(b'{"return": {}}') is None
    assert recorder.event_of(b"[" * 100_000) is None
