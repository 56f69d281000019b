# SPDX-License-Identifier: GPL-2.0-or-later
"""VmService: VMs over gRPC, those of this root and, passed on, those of the roots beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from multiroot.arena.arena import Entry
from multiroot.arena.layout import CANARY
from multiroot.errors import BadRequestError, PeerLostError, WaitTimeoutError
from multiroot.rpc.server import PeerChannel, names_root
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.attach import Attachment
from multiroot.vm.elsewhere import Elsewhere, no_other_root
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import (
    definition_from_proto,
    definition_to_proto,
    extent_to_proto,
    notices_to_proto,
    stations_to_proto,
    ticks_to_proto,
)
from multiroot.vm.stream import wait_for_ticks

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

UNREACHABLE = "unreachable"
# Another root that owns one of these, and lives, tells what it is. A frozen one may have been taken by now.
ELSEWHERE = (VmState.HANDED, VmState.INCOMING, VmState.FROZEN)
ANSWER_S = 5.0  # another root's agent may take so long to list its VMs


class VmService(vm_pb2_grpc.VmServiceServicer):
    """Errors are raised as MultirootError; the server's interceptor turns them into statuses.

    A call about a VM goes to the root that owns it, unless the caller has named a root.
    """

    def __init__(self, manager: VmManager, channel: PeerChannel = no_other_root) -> None:
        """`channel` returns the connection to another root by its number."""
        self._manager = manager
        self._elsewhere = Elsewhere(channel)

    async def Run(self, request: vm_pb2.RunVmRequest, context: Context) -> vm_pb2.Vm:
        if request.definition.name == CANARY:
            raise BadRequestError(
                f"the name {CANARY} is kept for the VM that an update tries first", "take another"
            )
        vm = await self._manager.run(definition_from_proto(request.definition))
        return self._message(vm)

    async def List(self, request: vm_pb2.ListVmsRequest, context: Context) -> vm_pb2.ListVmsResponse:
        found = {vm.name: self._message(vm) for vm in self._manager.all()}
        mine = self._manager.host.root
        strangers = {entry.name: self._stranger(entry) for entry in self._manager.strangers()}
        if names_root(context):
            found |= {name: vm for name, vm in strangers.items() if vm.owner == mine}
        else:
            found |= strangers
            owners = {vm.owner for vm in found.values() if vm.state in ELSEWHERE} - {mine}
            silent = set()
            for root, seen in zip(owners, await asyncio.gather(*map(self._list, owners)), strict=True):
                if seen is None:
                    silent.add(root)
                else:
                    found |= seen
            found = {name: _unreachable(vm) if vm.owner in silent else vm for name, vm in found.items()}
        return vm_pb2.ListVmsResponse(vms=[found[name] for name in sorted(found)])

    async def Get(self, request: vm_pb2.GetVmRequest, context: Context) -> vm_pb2.Vm:
        if owner := self._owner_elsewhere(request.name, context):
            try:
                with self._elsewhere.asked(owner) as (stub, named):
                    return await stub.Get(request, timeout=context.time_remaining(), metadata=named)
            except (PeerLostError, WaitTimeoutError):
                return _unreachable(self._known(request.name))
        return self._known(request.name)

    async def Stop(self, request: vm_pb2.StopVmRequest, context: Context) -> vm_pb2.StopVmResponse:
        if owner := self._owner_elsewhere(request.name, context):
            with self._elsewhere.asked(owner) as (stub, named):
                return await stub.Stop(request, timeout=context.time_remaining(), metadata=named)
        await self._manager.stop(request.name)
        return vm_pb2.StopVmResponse()

    async def Reset(self, request: vm_pb2.ResetVmRequest, context: Context) -> vm_pb2.ResetVmResponse:
        if owner := self._owner_elsewhere(request.name, context):
            with self._elsewhere.asked(owner) as (stub, named):
                return await stub.Reset(request, timeout=context.time_remaining(), metadata=named)
        await self._manager.reset(request.name)
        return vm_pb2.ResetVmResponse()

    async def Forget(self, request: vm_pb2.ForgetVmRequest, context: Context) -> vm_pb2.ForgetVmResponse:
        await self._manager.forget(request.name)
        return vm_pb2.ForgetVmResponse()

    async def Console(
        self, request_iterator: AsyncIterator[vm_pb2.ConsoleRequest], context: Context
    ) -> AsyncIterator[vm_pb2.ConsoleResponse]:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise BadRequestError("no VM named")
        follow = not names_root(context)
        attachment = Attachment(
            self._manager, self._elsewhere, first.name, follow=follow, kept_only=first.kept_only
        )
        async for data in attachment.output(requests, history=first.history):
            yield vm_pb2.ConsoleResponse(output=data)

    async def GetTicks(self, request: vm_pb2.GetTicksRequest, context: Context) -> vm_pb2.Ticks:
        vm = self._manager.get(request.name)
        return ticks_to_proto(await wait_for_ticks(vm, request.wait_count))

    def _owner_elsewhere(self, name: str, context: Context) -> int | None:
        return None if names_root(context) else self._manager.owned_elsewhere(name)

    async def _list(self, root: int) -> dict[str, vm_pb2.Vm] | None:
        """The VMs that root `root` owns, as it sees them; None if it does not answer in time."""
        try:
            with self._elsewhere.asked(root) as (stub, named):
                answer = await stub.List(vm_pb2.ListVmsRequest(), timeout=ANSWER_S, metadata=named)
        except (PeerLostError, WaitTimeoutError) as error:
            log.warning("the VMs of root %d: %s", root, error)
            return None
        return {vm.definition.name: vm for vm in answer.vms if vm.owner == root}

    def _known(self, name: str) -> vm_pb2.Vm:
        """The VM as this root and the arena know it; raises BadRequestError if neither does."""
        stranger = next((entry for entry in self._manager.strangers() if entry.name == name), None)
        return self._message(self._manager.get(name)) if stranger is None else self._stranger(stranger)

    def _stranger(self, entry: Entry) -> vm_pb2.Vm:
        """A VM that this root does not know, by what the arena says."""
        state, error = self._manager.of(entry)
        return vm_pb2.Vm(
            definition=vm_pb2.VmDefinition(name=entry.name, ram_bytes=entry.extent.size),
            state=state,
            extents=[extent_to_proto(entry.extent)],
            owner=entry.owner.root,
            epoch=entry.owner.epoch,
            error=error,
        )

    def _message(self, vm: Instance) -> vm_pb2.Vm:
        owner = self._manager.owner(vm)
        return vm_pb2.Vm(
            definition=definition_to_proto(vm.definition),
            state=vm.state,
            extents=[extent_to_proto(vm.entry.extent)],
            owner=owner.root,
            epoch=owner.epoch,
            pid=vm.vmm.process.pid if vm.vmm.process and vm.active else 0,
            error=vm.error,
            notices=notices_to_proto(vm.notices),
            stations=stations_to_proto(vm.stations),
            waits_for=vm.waits_for,
        )


def _unreachable(vm: vm_pb2.Vm) -> vm_pb2.Vm:
    """A VM of another root that lives, whose agent does not answer."""
    seen = vm_pb2.Vm()
    seen.CopyFrom(vm)
    seen.state, seen.error = UNREACHABLE, f"root {vm.owner}'s agent does not answer"
    return seen
