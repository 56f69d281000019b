# SPDX-License-Identifier: GPL-2.0-or-later
"""VmService: VMs of this root over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from multiroot.errors import BadRequestError, ConflictError
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.clock import raw_clock
from multiroot.vm.history import read_history
from multiroot.vm.instance import Instance
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_from_proto, definition_to_proto, extent_to_proto, ticks_to_proto
from multiroot.vm.stream import ConsoleClosedError, ConsoleStream, open_console
from multiroot.vm.ticks import Stretch, parse

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
        async with open_console(vm.folder) as console:
            if first.history:
                yield vm_pb2.ConsoleResponse(output=console.history())
            typing = asyncio.create_task(_pass_input(requests, console))
            try:
                while data := await console.read():
                    yield vm_pb2.ConsoleResponse(output=data)
            finally:
                typing.cancel()

    async def GetTicks(self, request: vm_pb2.GetTicksRequest, context: Context) -> vm_pb2.Ticks:
        vm = self._manager.get(request.name)
        stretch = await asyncio.to_thread(self._stretch, vm)
        while len(stretch.ticks) < request.wait_count:
            if not vm.active:
                raise ConflictError(f"{vm.name} is {vm.state} and ticks no more", vm.error)
            try:
                async with open_console(vm.folder) as console:
                    # Again, for what came before we were connected.
                    stretch = await asyncio.to_thread(self._stretch, vm)
                    await _lines(console, request.wait_count - len(stretch.ticks))
            except ConsoleClosedError:
                # QEMU has just ended; what became of the VM is told next.
                await vm.ended()
            stretch = await asyncio.to_thread(self._stretch, vm)
        return ticks_to_proto(stretch)

    def _stretch(self, vm: Instance) -> Stretch:
        """All that is kept; a long history takes a while to parse."""
        offset = raw_clock(self._manager.host.clock).offset()
        pieces = read_history(vm.folder.console_record)
        return parse((piece.at_ns + offset, piece.data) for piece in pieces)

    def _message(self, vm: Instance) -> vm_pb2.Vm:
        owner = self._manager.owner(vm)
        return vm_pb2.Vm(
            definition=definition_to_proto(vm.definition),
            state=vm.state,
            extents=[extent_to_proto(vm.entry.extent)],
            owner=owner.root,
            epoch=owner.epoch,
            pid=vm.process.pid if vm.process and vm.active else 0,
            error=vm.error,
        )


async def _lines(console: ConsoleStream, count: int) -> None:
    """Wait until the guest has ended that many more lines, or has ended."""
    while count > 0 and (data := await console.read()):
        count -= data.count(b"\n")


async def _pass_input(requests: AsyncIterator[vm_pb2.ConsoleRequest], console: ConsoleStream) -> None:
    async for request in requests:
        if request.input:
            await console.write(request.input)
