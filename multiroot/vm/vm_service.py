# SPDX-License-Identifier: GPL-2.0-or-later
"""VmService: VMs over gRPC, those of this root and, passed on, those of the roots beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from multiroot.arena.arena import Entry
from multiroot.arena.layout import CANARY
from multiroot.errors import BadRequestError, PeerLostError, WaitTimeoutError
from multiroot.rpc.server import PeerChannel, names_root
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm import nested_pages
from multiroot.vm.attach import Attachment
from multiroot.vm.definition import VmDefinition
from multiroot.vm.elsewhere import Elsewhere, no_other_root
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.lifecycle import Lifecycle
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

T = TypeVar("T")

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
        self._lifecycle = Lifecycle(manager)
        self._elsewhere = Elsewhere(channel)

    async def Run(self, request: vm_pb2.RunVmRequest, context: Context) -> vm_pb2.Vm:
        return self._message(await self._lifecycle.run(_wanted(request.definition)))

    async def Define(self, request: vm_pb2.DefineVmRequest, context: Context) -> vm_pb2.Vm:
        await self._lifecycle.define(_wanted(request.definition))
        return self._known(request.definition.name)

    async def Edit(self, request: vm_pb2.EditVmRequest, context: Context) -> vm_pb2.Vm:
        async def here() -> vm_pb2.Vm:
            await self._lifecycle.edit(definition_from_proto(request.definition))
            return self._known(request.definition.name)

        return await self._at_owner("Edit", request.definition.name, request, context, here)

    async def Start(self, request: vm_pb2.StartVmRequest, context: Context) -> vm_pb2.Vm:
        async def here() -> vm_pb2.Vm:
            return self._message(await self._lifecycle.start(request.name))

        return await self._at_owner("Start", request.name, request, context, here)

    async def List(self, request: vm_pb2.ListVmsRequest, context: Context) -> vm_pb2.ListVmsResponse:
        found = {vm.name: self._message(vm) for vm in self._manager.all()}
        mine = self._manager.host.root
        strangers = {entry.name: self._stranger(entry) for entry in self._manager.strangers()}
        found |= {name: self._stopped(name) for name in self._manager.homes.names() if self._is_stopped(name)}
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
        async def here() -> vm_pb2.Vm:
            found = self._known(request.name)
            found.nested_pages.extend(
                vm_pb2.NestedPages(size=size, count=count)
                for size, count in sorted(nested_pages.counts(found.pid).items())
            )
            return found

        try:
            return await self._at_owner("Get", request.name, request, context, here)
        except (PeerLostError, WaitTimeoutError):
            return _unreachable(self._known(request.name))

    async def Stop(self, request: vm_pb2.StopVmRequest, context: Context) -> vm_pb2.StopVmResponse:
        async def here() -> vm_pb2.StopVmResponse:
            limit = request.timeout_s if request.HasField("timeout_s") else None
            await self._lifecycle.stop(request.name, force=request.force, timeout_s=limit)
            return vm_pb2.StopVmResponse()

        return await self._at_owner("Stop", request.name, request, context, here)

    async def Reboot(self, request: vm_pb2.RebootVmRequest, context: Context) -> vm_pb2.Vm:
        async def here() -> vm_pb2.Vm:
            limit = request.timeout_s if request.HasField("timeout_s") else None
            return self._message(await self._lifecycle.reboot(request.name, limit))

        return await self._at_owner("Reboot", request.name, request, context, here)

    async def Reset(self, request: vm_pb2.ResetVmRequest, context: Context) -> vm_pb2.ResetVmResponse:
        async def here() -> vm_pb2.ResetVmResponse:
            await self._lifecycle.reset(request.name)
            return vm_pb2.ResetVmResponse()

        return await self._at_owner("Reset", request.name, request, context, here)

    async def Pause(self, request: vm_pb2.PauseVmRequest, context: Context) -> vm_pb2.Vm:
        async def here() -> vm_pb2.Vm:
            return self._message(await self._lifecycle.pause(request.name))

        return await self._at_owner("Pause", request.name, request, context, here)

    async def Unpause(self, request: vm_pb2.UnpauseVmRequest, context: Context) -> vm_pb2.Vm:
        async def here() -> vm_pb2.Vm:
            return self._message(await self._lifecycle.resume(request.name))

        return await self._at_owner("Unpause", request.name, request, context, here)

    async def Remove(self, request: vm_pb2.RemoveVmRequest, context: Context) -> vm_pb2.RemoveVmResponse:
        async def here() -> vm_pb2.RemoveVmResponse:
            await self._lifecycle.remove(request.name, force=request.force)
            return vm_pb2.RemoveVmResponse()

        return await self._at_owner("Remove", request.name, request, context, here)

    async def Forget(self, request: vm_pb2.ForgetVmRequest, context: Context) -> vm_pb2.ForgetVmResponse:
        await self._manager.forget(request.name)
        return vm_pb2.ForgetVmResponse()

    async def FindFile(self, request: vm_pb2.FindFileRequest, context: Context) -> vm_pb2.FindFileResponse:
        return vm_pb2.FindFileResponse(found=self._manager.host.files.has(request.name))

    async def KeepFile(
        self, request_iterator: AsyncIterator[vm_pb2.FilePiece], context: Context
    ) -> vm_pb2.KeepFileResponse:
        pieces = aiter(request_iterator)
        first = await anext(pieces, None)
        if first is None:
            raise BadRequestError("no file came")
        await self._lifecycle.keep_file(first.name, first.size, _contents(first, pieces))
        return vm_pb2.KeepFileResponse()

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

    async def _at_owner(
        self, method: str, name: str, request: Message, context: Context, here: Callable[[], Awaitable[T]]
    ) -> T:
        """What the root that owns the VM `name` answers to this call; `here` answers it in this root."""
        owner = self._owner_elsewhere(name, context)
        if owner is None:
            return await here()
        with self._elsewhere.asked(owner) as (stub, named):
            call = getattr(stub, method)
            answer: T = await call(request, timeout=context.time_remaining(), metadata=named)
            return answer

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
        if stranger is not None:
            return self._stranger(stranger)
        return self._stopped(name) if self._is_stopped(name) else self._message(self._manager.get(name))

    def _is_stopped(self, name: str) -> bool:
        manager = self._manager
        if manager.state(name) is not VmState.STOPPED or manager.host.arena.vm(name) is not None:
            return False
        return manager.homes.exists(name)

    def _stopped(self, name: str) -> vm_pb2.Vm:
        """A VM that no root has, by what the arena keeps of it."""
        home = self._manager.homes.read(name)
        if home is None:
            error = "what the arena keeps of it cannot be read"
            return vm_pb2.Vm(definition=vm_pb2.VmDefinition(name=name), state=VmState.STOPPED, error=error)
        return vm_pb2.Vm(
            definition=definition_to_proto(home.definition),
            state=VmState.STOPPED,
            error=home.error,
            notices=notices_to_proto(home.notices),
        )

    def _stranger(self, entry: Entry) -> vm_pb2.Vm:
        """A VM that this root does not know, by what the arena says."""
        state, error = self._manager.of(entry)
        home = self._manager.homes.read(entry.name)
        if home and home.definition.checksum() == entry.record.definition:
            definition = definition_to_proto(home.definition)
        else:
            definition = vm_pb2.VmDefinition(name=entry.name, ram_bytes=entry.extent.size)
        return vm_pb2.Vm(
            definition=definition,
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


async def _contents(first: vm_pb2.FilePiece, more: AsyncIterator[vm_pb2.FilePiece]) -> AsyncIterator[bytes]:
    yield first.data
    async for piece in more:
        yield piece.data


def _wanted(message: vm_pb2.VmDefinition) -> VmDefinition:
    """The definition of a user's VM."""
    if message.name == CANARY:
        raise BadRequestError(
            f"the name {CANARY} is kept for the VM that an update tries first", "take another"
        )
    return definition_from_proto(message)


def _unreachable(vm: vm_pb2.Vm) -> vm_pb2.Vm:
    """A VM of another root that lives, whose agent does not answer."""
    seen = vm_pb2.Vm()
    seen.CopyFrom(vm)
    seen.state, seen.error = UNREACHABLE, f"root {vm.owner}'s agent does not answer"
    return seen
