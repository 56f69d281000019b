# SPDX-License-Identifier: GPL-2.0-or-later
"""A console that stays with its VM: when another root takes the VM, it goes on there.

Each root keeps what a guest has said since it runs there. The giver's part ends with the giver's VMM, which
has then passed on all that the guest said; the taker's is read from its beginning. So nothing is missing and
nothing comes twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from multiroot.errors import ConflictError
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.elsewhere import Elsewhere
from multiroot.vm.manager import VmManager
from multiroot.vm.stream import Follower, recorded

LOOK_S = 1.0  # so often a silent console's root is looked at: a root that dies says nothing


class Keyboard:
    """What the user types; what no console has taken yet waits for the next one."""

    def __init__(self, requests: AsyncIterator[vm_pb2.ConsoleRequest]) -> None:
        self._typed: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting = b""
        self._reading = asyncio.create_task(self._read(requests))

    def close(self) -> None:
        """Nobody types any more."""
        self._reading.cancel()

    @asynccontextmanager
    async def given(self, write: Callable[[bytes], Awaitable[object]]) -> AsyncIterator[None]:
        """In the body, `write` gets what is typed."""
        giving = asyncio.create_task(self._give(write))
        try:
            yield
        finally:
            giving.cancel()

    async def _read(self, requests: AsyncIterator[vm_pb2.ConsoleRequest]) -> None:
        async for request in requests:
            if request.input:
                self._typed.put_nowait(request.input)

    async def _give(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        while True:
            self._waiting = self._waiting or await self._typed.get()
            try:
                await write(self._waiting)
            except (grpc.RpcError, asyncio.InvalidStateError):
                return  # That console has ended; the next one gets it.
            self._waiting = b""


class Attachment:
    """One user at the console of one VM. `follow`: wherever the VM goes, else in this root alone.

    With `kept_only` there is nothing to wait for: what its root has kept is all.
    """

    def __init__(
        self, manager: VmManager, elsewhere: Elsewhere, name: str, *, follow: bool, kept_only: bool = False
    ) -> None:
        self._manager = manager
        self._elsewhere = elsewhere
        self._name = name
        self._follow = follow
        self._kept_only = kept_only

    async def output(
        self, requests: AsyncIterator[vm_pb2.ConsoleRequest], *, history: bool
    ) -> AsyncIterator[bytes]:
        """What the guest says until its VMM ends, with `history` first what its root has kept of it.

        Raises BadRequestError for an unknown VM, ConflictError for one that is lost, PeerLostError if the
        agent of its root does not answer.
        """
        keyboard = Keyboard(requests)
        try:
            owner = self._owner()
            while True:
                part = (
                    self._here(keyboard, history) if owner is None else self._there(owner, keyboard, history)
                )
                async for data in part:
                    yield data
                self._check_lost()
                if self._kept_only:
                    return
                before, owner = owner, self._owner()
                if owner == before or not self._manager.exists(self._name):
                    return
                history = True
        finally:
            keyboard.close()

    def _owner(self) -> int | None:
        """The other root that has the VM, None if it is this one."""
        return self._manager.owned_elsewhere(self._name) if self._follow else None

    def _check_lost(self) -> None:
        if self._follow and self._manager.is_lost(self._name):
            raise ConflictError(
                f"{self._name} was lost with its root", f"free it: multiroot vm forget {self._name}"
            )

    async def _here(self, keyboard: Keyboard, history: bool) -> AsyncIterator[bytes]:
        vm = self._manager.known(self._name)
        if self._kept_only or not vm.active:
            if history:
                yield recorded(vm.folder, 0)
            return
        console = Follower(vm.folder)
        async with keyboard.given(console.write):
            async for data in console.output(history=history):
                yield data

    async def _there(self, owner: int, keyboard: Keyboard, history: bool) -> AsyncIterator[bytes]:
        with self._elsewhere.asked(owner) as (stub, named):
            call = stub.Console(metadata=named)
            try:
                asked = vm_pb2.ConsoleRequest(name=self._name, history=history, kept_only=self._kept_only)
                await call.write(asked)

                async def write(data: bytes) -> None:
                    await call.write(vm_pb2.ConsoleRequest(input=data))

                async with keyboard.given(write):
                    while answer := await self._read(call):
                        yield answer.output
            finally:
                call.cancel()

    async def _read(self, call: Any) -> vm_pb2.ConsoleResponse | None:
        """What the other root sends next, None at the end; raises ConflictError when that root has ended."""
        reading = asyncio.ensure_future(call.read())
        while not (await asyncio.wait({reading}, timeout=LOOK_S))[0]:
            try:
                self._check_lost()
            except ConflictError:
                reading.cancel()
                raise
        answer = reading.result()
        return None if answer is grpc.aio.EOF else answer
