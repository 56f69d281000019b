# SPDX-License-Identifier: GPL-2.0-or-later
"""HandoffService: the taker over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from multiroot.arena.allocator import Extent
from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError
from multiroot.handoff.taker import Taker
from multiroot.passthrough import messages as device
from multiroot.rpc import phases as phase_messages
from multiroot.rpc.v1 import handoff_pb2, handoff_pb2_grpc
from multiroot.vm.messages import definition_from_proto

Context = grpc.aio.ServicerContext[Any, Any]


class HandoffService(handoff_pb2_grpc.HandoffServiceServicer):
    """Errors are raised as MultirootError; the server's interceptor turns them into statuses."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    async def Prepare(
        self, request: handoff_pb2.PrepareRequest, context: Context
    ) -> handoff_pb2.PrepareResponse:
        phases = await self._taker.prepare(
            definition_from_proto(request.definition),
            [Extent(extent.offset, extent.size) for extent in request.extents],
            Owner(request.giver, request.epoch),
            request.qemu_version,
            device.state_from_proto(request.device) if request.HasField("device") else None,
        )
        return handoff_pb2.PrepareResponse(phases=[phase_messages.to_proto(phase) for phase in phases])

    async def Transfer(
        self, request_iterator: AsyncIterator[handoff_pb2.TransferRequest], context: Context
    ) -> handoff_pb2.TransferResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise BadRequestError("no VM named")
        # Tells the giver that from here on nothing but bytes is needed.
        await context.send_initial_metadata(())
        taken = await self._taker.transfer(first.name, _chunks(requests))
        move = taken.device
        return handoff_pb2.TransferResponse(
            device_state_bytes=taken.device_state_bytes,
            epoch=taken.epoch,
            resumed_ns=taken.resumed_ns,
            phases=[phase_messages.to_proto(phase) for phase in taken.phases],
            device=device.moved_to_proto(move.before, move.after, move.seen) if move else None,
        )

    async def Abort(self, request: handoff_pb2.AbortRequest, context: Context) -> handoff_pb2.AbortResponse:
        await self._taker.abort(request.name)
        return handoff_pb2.AbortResponse()


async def _chunks(requests: AsyncIterator[handoff_pb2.TransferRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.chunk
