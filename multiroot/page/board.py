# SPDX-License-Identifier: GPL-2.0-or-later
"""The board that a guest of the lab keeps (ticker.board): where a browser finds it, and how soon it answers.

The board is nowhere but in the guest. A browser gets it from a port of the workstation's loopback, which
QEMU's network leads to the guest, whatever kernel runs that.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp
import grpc

from multiroot.errors import MultirootError
from multiroot.lab import forwards
from multiroot.lab.state import LabState
from multiroot.rpc import client
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.watch.collect import Collector

ASK_S = 0.5  # from one question of ours to the next; each costs the guest some of its emulated CPU
PATIENCE_S = 20.0  # so long an answer may take: a handoff under emulation, on a busy computer
_LOOK_S = 3.0  # until it is looked for again
_CALL_S = 5.0
_PARAMETER = re.compile(r"(?:^|\s)ticker\.board=(\d+)(?:\s|$)")


@dataclass(frozen=True)
class Board:
    """The VM that keeps it, and the port of the loopback that leads there."""

    vm: str
    port: int


def find(lab: LabState) -> Board | None:
    """The board of the first VM that keeps one; None if there is none, or no agent that could tell."""
    for vm in sorted(_vms(lab), key=lambda each: each.definition.name):
        wanted = _PARAMETER.search(vm.definition.append)
        address = next((card.address.partition("/")[0] for card in vm.definition.cards if card.address), "")
        if wanted and address:
            return Board(vm.definition.name, forwards.add(lab, address, int(wanted[1])).port)
    return None


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


class Asker:
    """Looks for a board and asks for it on and on; what that takes becomes the strip `web/VM`."""

    def __init__(self, lab: LabState) -> None:
        self._lab = lab
        self.found: Board | None = None

    async def run(self, told: Collector) -> None:
        """Until it is cancelled."""
        while self.found is None:
            self.found = await self._look()
            if self.found is None:
                await asyncio.sleep(_LOOK_S)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session:
            while True:
                await self._ask(session, told, self.found)
                await asyncio.sleep(ASK_S)

    async def _look(self) -> Board | None:
        try:
            return await asyncio.to_thread(find, self._lab)
        except MultirootError:
            # QEMU may be busy, or about to end; it is looked for again.
            return None

    async def _ask(self, session: aiohttp.ClientSession, told: Collector, board: Board) -> None:
        began = time.monotonic()
        try:
            async with session.get(f"http://{forwards.HOST}:{board.port}/cells") as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            # No answer is a gap in the strip, which is what it shows.
            return
        took_ns = int((time.monotonic() - began) * 1e9)
        if at := told.at(began):
            told.measure("web", board.vm, "ns", [(at + took_ns, took_ns)])
