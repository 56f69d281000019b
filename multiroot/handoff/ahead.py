# SPDX-License-Identifier: GPL-2.0-or-later
"""VMMs that were started before anybody hands their VMs over.

Of all that is prepared for a handoff, the start of a VMM takes the longest. It needs nothing that changes
while a VM runs, so it can be done as soon as there is another root, and a handoff finds it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from multiroot.arena.arena import Standing
from multiroot.arena.layout import Owner
from multiroot.errors import MultirootError
from multiroot.vm.definition import VmDefinition
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager

# So often is looked whether the VMs that are expected are still there.
LOOK_S = 1.0


def is_the_same_for_long(definition: VmDefinition) -> bool:
    """Whether what its VMM opens when it starts stays as it is while the VM runs elsewhere: not so devices of
    its own, and disks that a server has.
    """
    return not definition.functions and not any(disk.server or disk.local for disk in definition.disks)


@dataclass(frozen=True)
class Expected:
    """A VM, its owner when it was expected, and the start of its VMM."""

    vm: Instance
    giver: Owner
    starting: asyncio.Task[None]


class Ahead:
    """VMs that may be handed to this root, by name. None of them is known to the manager."""

    def __init__(self, manager: VmManager, discard: Callable[[Instance], Awaitable[None]]) -> None:
        """`discard` ends a VMM and removes the VM's folder."""
        self._host = manager.host
        self._discard = discard
        self._expected: dict[str, Expected] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        manager.make_way = self.drop

    async def expect(self, vm: Instance, giver: Owner) -> None:
        """Have a VMM wait for `vm`, in place of one that does. Raises CommandError if it does not start."""
        await self.drop(vm.name)
        starting = asyncio.create_task(_start(vm, giver))
        self._expected[vm.name] = Expected(vm, giver, starting)
        self._look_later()
        try:
            await asyncio.shield(starting)
        except MultirootError:
            # `start` has left nothing.
            self._forget(vm)
            raise

    async def claim(self, candidate: Instance) -> Instance | None:
        """The same VM with a VMM that waits, which is the caller's from now on, if there is one."""
        found = await self._settled(candidate.name)
        if found is None:
            return None
        vm = found.vm
        if vm.state is VmState.INCOMING and _are_alike(vm, candidate):
            vm.owner = candidate.owner
            return vm
        await self._discard(vm)
        return None

    async def drop(self, name: str) -> None:
        """Expect the VM `name` no more."""
        if found := await self._settled(name):
            await self._discard(found.vm)

    async def drop_all(self) -> None:
        """Expect nothing any more."""
        if self._looking:
            self._looking.cancel()
            self._looking = None
        for name in tuple(self._expected):
            await self.drop(name)
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _settled(self, name: str) -> Expected | None:
        """Wait for the end of a start. What is returned is expected no more."""
        found = self._expected.get(name)
        if found is None:
            return None
        await asyncio.wait({found.starting})
        if self._expected.get(name) is not found:
            return None
        del self._expected[name]
        return None if found.starting.cancelled() or found.starting.exception() else found

    def _forget(self, vm: Instance) -> None:
        found = self._expected.get(vm.name)
        if found and found.vm is vm:
            del self._expected[vm.name]

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Give up those that have ended, are other VMs by now, or whose root has no way to hand them over."""
        self._looking = None
        for name, expected in tuple(self._expected.items()):
            if self._is_gone(expected):
                leaving = asyncio.create_task(self.drop(name))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        if self._expected:
            self._look_later()

    def _is_gone(self, expected: Expected) -> bool:
        arena, vm = self._host.arena, expected.vm
        entry = arena.vm(vm.name)
        if entry is None or entry.record != vm.entry.record or entry.owner.root != expected.giver.root:
            return True
        return arena.standing(entry.owner) is Standing.LOST or vm.state is VmState.FAILED


async def _start(vm: Instance, giver: Owner) -> None:
    with vm.busy("prepared"):
        await vm.start(giver=giver)


def _are_alike(one: Instance, other: Instance) -> bool:
    same = one.definition == other.definition and one.cpu == other.cpu
    return same and one.entry.record == other.entry.record
