# SPDX-License-Identifier: GPL-2.0-or-later
"""Those who talk to guests from outside: what they measure, and what they do when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from multiroot.errors import PeerLostError
from multiroot.lab import visitors
from multiroot.lab.visitors import Door, Doors, Visitors
from multiroot.watch.facts import Facts, StreamFacts, VmFacts

VMS = frozenset({"vm0"})
HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Told:
    """What a collector is told."""

    def __init__(self) -> None:
        self.view = SimpleNamespace(facts=Facts(vms={"vm0": VmFacts()}))
        self.points: dict[str, list[tuple[int, int]]] = {}
        self.news = asyncio.Event()

    def at(self, clock_s: float) -> int:
        return int(clock_s * 1e9)

    def measure(self, stream: StreamFacts, points: Iterable[Any]) -> None:
        assert stream.unit == "ns"
        # Only pings come on one connection.
        assert (stream.since_ns > 0) == (stream.kind == "ping")
        self.points.setdefault(f"{stream.kind}/{stream.vm}", []).extend(points)
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Guest:
    """Says everything back, or answers each request; `connections` that were begun. `leave` closes them."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.connections = 0
        self.leave = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while (data := await reader.read(4096)) and not self.leave:
            writer.write(self.answer or data)
        writer.close()

    @asynccontextmanager
    async def door(self) -> AsyncIterator[Door]:
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as server:
            yield Door("vm0", server.sockets[0].getsockname()[1])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASK_S", "PING_S", "LOOK_S"):
        monkeypatch.setattr(visitors, name, 0.005)


@asynccontextmanager
async def visiting(
    monkeypatch: pytest.MonkeyPatch, doors: Callable[[], Doors], told: Told
) -> AsyncIterator[Visitors]:
    monkeypatch.setattr(visitors, "find", lambda lab: doors())
    made = Visitors(None)  # type: ignore[arg-type]
    async with visitors.beside(made.run(told)):  # type: ignore[arg-type]
        yield made
    assert all(task.done() for task in made._going.values())


async def test_pings_go_by_one_connection_and_answers_tell_how_long_they_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest, board, told = Guest(), Guest(HTTP), Told()
    async with (
        guest.door() as echo,
        board.door() as cells,
        visiting(monkeypatch, lambda: Doors((cells,), (echo,), VMS), told) as visitor,
    ):
        await told.until(lambda: len(told.points.get("ping/vm0", ())) >= 5 and "web/vm0" in told.points)
        assert visitor.board == cells
    assert guest.connections == 1
    assert all(at > took > 0 for strip in told.points.values() for at, took in strip)


async def test_nobody_asks_any_more_when_the_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    board, told = Guest(HTTP), Told()
    going: list[asyncio.Task[None]] = []
    left_at_its_end: list[asyncio.Task[None]] = []
    usual = aiohttp.ClientSession.close

    async def close(session: aiohttp.ClientSession) -> None:
        left_at_its_end.extend(task for task in going if not task.done())
        await usual(session)

    monkeypatch.setattr(aiohttp.ClientSession, "close", close)
    async with (
        board.door() as cells,
        visiting(monkeypatch, lambda: Doors((cells,), (), VMS), told) as visitor,
    ):
        await told.until(lambda: "web/vm0" in told.points)
        going += visitor._going.values()
    assert going
    assert left_at_its_end == []


async def test_a_connection_that_breaks_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, told = Guest(), Told()
    async with guest.door() as echo, visiting(monkeypatch, lambda: Doors((), (echo,), VMS), told):
        await told.until(lambda: bool(told.points))
        guest.leave = True
        await asyncio.sleep(0.05)
        guest.leave = False
        before = len(told.points["ping/vm0"])
        await told.until(lambda: len(told.points["ping/vm0"]) > before + 2)
    assert guest.connections >= 2


async def test_doors_are_looked_for_again_when_nobody_could_tell_and_left_when_they_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest, told, looks = Guest(), Told(), 0
    async with guest.door() as echo:

        def found() -> Doors:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise PeerLostError("QEMU is busy")
            if looks == 2:
                return Doors()  # it is just being defined
            return Doors((), (echo,), VMS) if looks == 3 else Doors()

        async with visiting(monkeypatch, found, told) as visitor:
            await told.until(lambda: bool(told.points))
            assert visitor.board is None
            told.view.facts = Facts()
            async with asyncio.timeout(20):
                while looks < 4:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            count = len(told.points["ping/vm0"])
            await asyncio.sleep(0.05)
            assert len(told.points["ping/vm0"]) == count
    assert looks == 4
