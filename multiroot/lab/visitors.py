# SPDX-License-Identifier: GPL-2.0-or-later
"""Those who talk to the lab's guests from outside.

One asks for the board that a guest keeps (ticker.board), one says a word to each guest that says it back
(ticker.echo). How soon they are answered becomes the strips web/VM and ping/VM.

They reach a guest by a port of the workstation's loopback, which QEMU's network leads to the guest, whatever
kernel runs that. Each answer costs the guest some of its emulated CPU, so they do not ask often.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc

from multiroot.errors import MultirootError
from multiroot.lab import forwards
from multiroot.lab.state import LabState
from multiroot.lab.watching import collector
from multiroot.rpc import client
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.watch.collect import Collector
from multiroot.watch.facts import StreamFacts

ASK_S = 0.5  # from one question for the board to the next
PING_S = 0.25
PINGED = 4  # VMs, at most
PATIENCE_S = 20.0  # so long an answer may take: a handoff under emulation, on a busy computer
LOOK_S = 3.0  # until doors are looked for again
_CALL_S = 5.0
_WORD = b"."


@dataclass(frozen=True)
class Door:
    """A VM that serves something, and the port of the loopback that leads there."""

    vm: str
    port: int


@dataclass(frozen=True)
class Doors:
    """All that are known, and the names of the VMs that were asked for theirs."""

    boards: tuple[Door, ...] = ()
    echoes: tuple[Door, ...] = ()
    vms: frozenset[str] = frozenset()


def find(lab: LabState) -> Doors:
    """What the VMs of a lab serve, by their kernels' parameters. Raises MultirootError if QEMU is busy."""
    vms = sorted(_vms(lab), key=lambda each: each.definition.name)
    names = frozenset(each.definition.name for each in vms)
    return Doors(tuple(_doors(lab, vms, "board")), tuple(_doors(lab, vms, "echo")), names)


def _doors(lab: LabState, vms: list[vm_pb2.Vm], what: str) -> Iterator[Door]:
    parameter = re.compile(rf"(?:^|\s)ticker\.{what}=(\d+)(?:\s|$)")
    for vm in vms:
        wanted = parameter.search(vm.definition.append)
        address = next((card.address.partition("/")[0] for card in vm.definition.cards if card.address), "")
        if wanted and address:
            name = vm.definition.name
            yield Door(name, forwards.add(lab, address, int(wanted[1]), vm=name).port)


def _vms(lab: LabState) -> Iterator[vm_pb2.Vm]:
    for root in ("old", "new"):
        with client.connect(lab.agent_address, root=root) as channel:
            try:
                yield from (
                    vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=_CALL_S).vms
                )
            except grpc.RpcError:
                # There may be no new root, and the old one may have ended.
                continue


class Visitors:
    """Look for doors, and go there on and on."""

    def __init__(self, lab: LabState) -> None:
        self._lab = lab
        self._doors = Doors()
        self._going: dict[tuple[str, Door], asyncio.Task[None]] = {}

    @property
    def board(self) -> Door | None:
        """The board of the first VM that keeps one, once it is found."""
        return next(iter(self._doors.boards), None)

    async def run(self, told: Collector) -> None:
        """Until it is cancelled. What is measured is put into what `told` tells."""
        vms: frozenset[str] = frozenset()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session:
            try:
                while True:
                    there = frozenset(told.view.facts.vms)
                    if there != vms and await self._look():
                        # One that is just being defined may be told of before it can be asked for.
                        vms = there & self._doors.vms
                        self._go(session, told)
                    await asyncio.sleep(LOOK_S)
            finally:
                # Before the session: a visit that asks by one that is closed is a bug of ours.
                await _ended(self._going.values())

    async def _look(self) -> bool:
        """Find what there is; False if nobody could tell."""
        try:
            self._doors = await asyncio.to_thread(find, self._lab)
        except MultirootError:
            # QEMU may be busy, or about to end; it is asked again.
            return False
        return True

    def _go(self, session: aiohttp.ClientSession, told: Collector) -> None:
        """To new doors; those that are no more are left."""
        boards, echoes = self._doors.boards[:1], self._doors.echoes[:PINGED]
        wanted = {("web", each) for each in boards} | {("ping", each) for each in echoes}
        for gone in self._going.keys() - wanted:
            self._going.pop(gone).cancel()
        for kind, door in wanted - self._going.keys():
            visit = self._ask(session, told, door) if kind == "web" else self._ping(told, door)
            self._going[kind, door] = asyncio.create_task(visit)

    async def _ask(self, session: aiohttp.ClientSession, told: Collector, door: Door) -> None:
        """For the board, each time by a connection of its own."""
        while True:
            began = time.monotonic()
            # No answer is a gap in the strip, which is what it shows.
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"http://{forwards.HOST}:{door.port}/cells") as answer:
                    await answer.read()
                _tell(told, StreamFacts("web", door.vm, "ns"), began)
            await asyncio.sleep(ASK_S)

    async def _ping(self, told: Collector, door: Door) -> None:
        """By one connection for as long as that lasts: a handoff does not end it."""
        while True:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(forwards.HOST, door.port)
                with closing(writer):
                    await self._ping_on(told, door, reader, writer)
            await asyncio.sleep(LOOK_S)

    async def _ping_on(
        self, told: Collector, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        stream = StreamFacts("ping", door.vm, "ns", told.at(time.monotonic()))
        while True:
            began = time.monotonic()
            writer.write(_WORD)
            async with asyncio.timeout(PATIENCE_S):
                await reader.readexactly(len(_WORD))
            _tell(told, stream, began)
            await asyncio.sleep(PING_S)


def _tell(told: Collector, stream: StreamFacts, began: float) -> None:
    """That a visitor who has asked at `began` (s of our clock) is answered now."""
    took_ns = int((time.monotonic() - began) * 1e9)
    if at := told.at(began):
        told.measure(stream, [(at + took_ns, took_ns)])


@asynccontextmanager
async def beside(work: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    """Have it run meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        await _ended([task])


@asynccontextmanager
async def visited(lab: LabState) -> AsyncIterator[Collector]:
    """Watches the machine of a lab while visitors talk to its guests."""
    async with collector(lab) as told, beside(Visitors(lab).run(told)):
        yield told


async def _ended(tasks: Any) -> None:
    """Cancel them, and wait until that is done; raises what went wrong in one."""
    for task in list(tasks):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
