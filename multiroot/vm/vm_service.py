# SPDX-License-Identifier: GPL-2.0-or-later
"""VmService: VMs of this root over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.history import read_history
from multiroot.vm.instance import Instance
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_from_proto, definition_to_proto, extent_to_proto, ticks_to_proto
from multiroot.vm.stream import Follower, wait_for_ticks

Context = grpc.aio.ServicerContext[Any, Any]


class VmService(vm_pb2_grpc.VmServiceServicer):
    """Errors are raised as MultirootError; the server's interceptor turns them into statuses."""

    def __init__(self, manager: VmManager) -> None:
        self._manager = manager

    async def Run(self, request: vm_pb2.RunVmRequest, context: Context) -> vm_pb2.Vm:
        vm = await self._manager.run(definition_from_proto(request.definition))
        return self._message(vm)

    async def List(self, request: vm_pb2.ListVmsRequest, context: Context) -> vm_pb2.ListVmsResponse:
        return vm_pb2.ListVmsResponse(vms=[self._message(vm) for vm in self._manager.all()])

    async def Get(self, request: vm_pb2.GetVmRequest, context: Context) -> vm_pb2.Vm:
        return self._message(self._manager.get(request.name))

    async def Stop(self, request: vm_pb2.StopVmRequest, context: Context) -> vm_pb2.StopVmResponse:
        await self._manager.stop(request.name)
        return vm_pb2.StopVmResponse()

    async def Console(
        self, request_iterator: AsyncIterator[vm_pb2.ConsoleRequest], context: Context
    ) -> AsyncIterator[vm_pb2.ConsoleResponse]:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise BadRequestError("no VM named")
        vm = self._manager.get(first.name)
        if not vm.active:
            if first.history:
                pieces = read_history(vm.folder.console_record)
                yield vm_pb2.ConsoleResponse(output=b"".join(piece.data for piece in pieces))
            return
        console = Follower(vm.folder)
        typing = asyncio.create_task(_pass_input(requests, console))
        try:
            async for data in console.output(history=first.history):
                yield vm_pb2.ConsoleResponse(output=data)
        finally:
            typing.cancel()

    async def GetTicks(self, request: vm_pb2.GetTicksRequest, context: Context) -> vm_pb2.Ticks:
        vm = self._manager.get(request.name)
        return ticks_to_proto(await wait_for_ticks(vm, request.wait_count))

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
        )


async def _pass_input(requests: AsyncIterator[vm_pb2.ConsoleRequest], console: Follower) -> None:
    async for request in requests:
        if request.input:
            await console.write(request.input)
