# SPDX-License-Identifier: GPL-2.0-or-later
"""The canary's VM in this root and in the new one: how it is started, moved, watched and ended."""

from __future__ import annotations

from dataclasses import replace

from multiroot.agent.context import Root
from multiroot.agent.guests import Guests
from multiroot.agent.handoffs import Handoffs
from multiroot.arena.layout import CANARY
from multiroot.coordinator.canary import DEFINITION, STOP_S, CanaryVm
from multiroot.errors import BadRequestError, ConflictError
from multiroot.handoff.evacuation import check
from multiroot.handoff.terms import Terms
from multiroot.phases import Phases
from multiroot.root.peers import Role
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.elsewhere import Elsewhere
from multiroot.vm.instance import Instance
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.stream import wait_for_ticks
from multiroot.vm.ticks import Stretch


class CanaryKeeper:
    """Does for `coordinator.canary` what takes the parts of an agent."""

    def __init__(self, root: Root, guests: Guests, handoffs: Handoffs) -> None:
        self._root = root
        self._guests = guests
        self._handoffs = handoffs
        self._elsewhere = Elsewhere(root.neighbours.channel)
        self.vm = CanaryVm(
            run=self._run,
            hand_over=self._hand_over,
            hand_back=lambda: handoffs.hand_back([CANARY], self._unseen()),
            ticks_here=self._ticks_here,
            ticks_there=self._ticks_there,
            stop=self._stop,
        )

    @property
    def in_new_root(self) -> bool:
        """Whether the new root has it, and lives."""
        child, owner = self._root.peers.get(Role.CHILD), self._owner
        return child is not None and owner == child.root and not self._root.device.has_ended(owner)

    @property
    def ours(self) -> bool:
        """Whether this root has it, or one that has ended."""
        owner, me = self._owner, self._root.me.root
        return owner is not None and (owner == me or self._root.device.has_ended(owner))

    def check_room(self) -> None:
        """Raises ConflictError when an update would fail when it has its new root, for want of memory."""
        manager = self._guests.manager_or_none
        if manager is None or self._owner is not None:
            return
        try:
            manager.host.arena.check_room(DEFINITION.ram_bytes)
        except ConflictError as error:
            raise ConflictError(
                f"there is no room for the VM that an update tries first: {error.message}",
                f"end a VM that is not needed, or add --no-canary; {error.hint}",
            ) from error

    @property
    def _owner(self) -> int | None:
        return self._guests.owners().get(CANARY)

    def _unseen(self) -> Phases:
        """Who looks at an update's phases looks for those of VMs."""
        return Phases(self._root.phases.side, self._root.clock)

    async def _run(self) -> Instance:
        return await self._guests.manager.run(DEFINITION)

    async def _hand_over(self, terms: Terms) -> None:
        alone = replace(terms, first=())
        check(
            await self._handoffs.hand_over([CANARY], "new", alone, self._unseen()),
            "multiroot handoff --to new",
        )

    async def _ticks_here(self, count: int) -> Stretch:
        return await wait_for_ticks(self._guests.manager.get(CANARY), count)

    async def _ticks_there(self, count: int) -> Stretch:
        request = vm_pb2.GetTicksRequest(name=CANARY, wait_count=count)
        with self._elsewhere.asked(self._root.peers.by_name("new").root) as (stub, named):
            return ticks_from_proto(await stub.GetTicks(request, metadata=named))

    async def _stop(self) -> None:
        if self._owner is None:
            return
        try:
            if self.in_new_root:
                with self._elsewhere.asked(self._root.peers.by_name("new").root) as (stub, named):
                    request = vm_pb2.RemoveVmRequest(name=CANARY, force=True)
                    await stub.Remove(request, timeout=STOP_S, metadata=named)
            else:
                await self._guests.manager.stop(CANARY)
        except BadRequestError:
            # Its root has just ended it.
            if self._owner is not None:
                raise
