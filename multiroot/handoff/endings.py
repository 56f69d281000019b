# SPDX-License-Identifier: GPL-2.0-or-later
"""What ends a handoff before the VM is the taker's: its root, the user, the VMM, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from multiroot.errors import ConflictError, PeerLostError
from multiroot.handoff.errors import GivenUpError, OverdueError
from multiroot.handoff.target import Target
from multiroot.handoff.terms import Terms, more_downtime
from multiroot.vm.instance import LIVE, Instance, VmState
from multiroot.vm.vmm import VmmGoneError

T = TypeVar("T")


class Endings:
    """Of one handoff. Its giver tells by events how far it is."""

    def __init__(self, vm: Instance, to: Target, terms: Terms, cancelled: asyncio.Event) -> None:
        """It is given up when `cancelled` is set before the VM is the taker's."""
        self._vm = vm
        self._to = to
        self._terms = terms
        self._cancelled = cancelled
        self.sending = asyncio.Event()  # our VMM was told to stop the guest and to send
        self.taken = asyncio.Event()  # the taker runs the guest; what is left is to clean up

    async def unless_ended(self, work: Coroutine[Any, Any, T], *also: Coroutine[Any, Any, NoReturn]) -> T:
        """What `work` returns or raises, or what one of those raises that may put an end to it."""
        going = asyncio.create_task(work)
        tasks: set[asyncio.Task[Any]] = {
            going,
            *(asyncio.create_task(each) for each in (self._lost(), self._given_up(), *also)),
        }
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if going not in ended:
                ended.pop().result()
            return going.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _lost(self) -> NoReturn:
        await (self._to.lost or asyncio.Event().wait)()
        raise PeerLostError(f"the root that was to take {self._vm.name} is gone")

    async def _given_up(self) -> NoReturn:
        await self._cancelled.wait()
        if self._is_theirs:
            await asyncio.Event().wait()
        raise GivenUpError(
            f"the handoff of {self._vm.name} was cancelled; it goes on in root {self._vm.host.root}"
        )

    async def stopped(self) -> NoReturn:
        """Fails when the VM ends by itself while it waits."""
        await self._vm.ended()
        self.check_running()
        raise VmmGoneError(f"the VMM of {self._vm.name} has ended")

    def check_running(self) -> None:
        """Raises ConflictError for a VM that has ended, or is in another root."""
        if self._vm.state is VmState.HANDED:
            raise ConflictError(f"{self._vm.name} has been handed to root {self._vm.owner.root}")
        if self._vm.state not in LIVE:
            raise ConflictError(f"{self._vm.name} does not run, it is {self._vm.state}", self._vm.error)

    def say_if_failed(self, error: BaseException) -> None:
        """Raises why the VMM ended, in place of what was being done when it was missed."""
        if isinstance(error, VmmGoneError) and self._vm.state is VmState.FAILED:
            self.check_running()

    async def overdue(self) -> NoReturn:
        """Fails when the guest has stood still for too long and is not the taker's yet.

        Nothing is asked of the VMM before it may be so: until then this costs the blackout nothing.
        """
        vm, limit_ms = self._vm, self._terms.downtime_ms
        await self.sending.wait()
        if vm.paused:
            # It misses nothing.
            await asyncio.Event().wait()
        await asyncio.sleep(limit_ms / 1e3)
        if not self._is_theirs:
            due_ns = await vm.vmm.stopped() + limit_ms * 1_000_000
            await asyncio.sleep(max(0, due_ns - vm.host.clock()) / 1e9)
        if self._is_theirs:
            await asyncio.Event().wait()
        raise OverdueError(
            f"{vm.name} stood still for {limit_ms} ms and was not root {self._to.root}'s yet;"
            f" it goes on in root {self._vm.host.root}",
            # The name last, for a VM may be called like a subcommand.
            f"allow it more: `multiroot handoff --to {self._to.name} {more_downtime(limit_ms)} {vm.name}`",
            limit_ms,
        )

    @property
    def _is_theirs(self) -> bool:
        """Whether the taker was in time. What is left is an answer, and to clean up."""
        return self.taken.is_set() or self._vm.word.read() != self._vm.owner
