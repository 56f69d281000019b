# SPDX-License-Identifier: GPL-2.0-or-later
"""HandoffService: the taker over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from multiroot.arena.allocator import Extent
from multiroot.arena.layout import Owner
from multiroot.failpoints import FailPoint, reach
from multiroot.handoff.taker import Taker
from multiroot.passthrough import messages as device
from multiroot.rpc import phases as phase_messages
from multiroot.rpc.v1 import handoff_pb2, handoff_pb2_grpc
from multiroot.vm.messages import definition_from_proto, notices_from_proto, stations_from_proto
from multiroot.vm.vmm import VmmVersion

Context = grpc.aio.ServicerContext[Any, Any]


class HandoffService(handoff_pb2_grpc.HandoffServiceServicer):
    """Errors are raised as MultirootError; the server's interceptor turns them into statuses."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    async def Expect(
        self, request: handoff_pb2.ExpectRequest, context: Context
    ) -> handoff_pb2.ExpectResponse:
        await self._taker.expect(
            definition_from_proto(request.definition),
            [Extent(extent.offset, extent.size) for extent in request.extents],
            Owner(request.giver, request.epoch),
            VmmVersion(request.vmm, request.vmm_version),
            request.cpu,
        )
        return handoff_pb2.ExpectResponse()

    async def Prepare(
        self, request: handoff_pb2.PrepareRequest, context: Context
    ) -> handoff_pb2.PrepareResponse:
        await reach(FailPoint.TAKER_PREPARE, request.definition.name)
        phases, stream = await self._taker.prepare(
            definition_from_proto(request.definition),
            [Extent(extent.offset, extent.size) for extent in request.extents],
            Owner(request.giver, request.epoch),
            VmmVersion(request.vmm, request.vmm_version),
            device.state_from_proto(request.device) if request.HasField("device") else None,
            notices_from_proto(request.notices),
            stations_from_proto(request.stations),
            cpu=request.cpu,
            paused=request.paused,
        )
        await reach(FailPoint.TAKER_PREPARED, request.definition.name)
        return handoff_pb2.PrepareResponse(
            phases=[phase_messages.to_proto(phase) for phase in phases],
            stream=handoff_pb2.Endpoint(host=stream.host, port=stream.port, key=stream.key),
        )

    async def Hint(self, request: handoff_pb2.HintRequest, context: Context) -> handoff_pb2.HintResponse:
        await self._taker.hint(request.name, request.hints)
        return handoff_pb2.HintResponse()

    async def Transfer(
        self, request: handoff_pb2.TransferRequest, context: Context
    ) -> AsyncIterator[handoff_pb2.TransferProgress]:
        incoming = await self._taker.ready(request.name)
        try:
            await reach(FailPoint.TAKER_READY, request.name)
            # From here on nothing but the VMM's bytes is needed.
            yield handoff_pb2.TransferProgress(ready=handoff_pb2.Ready())
        except BaseException:
            # The giver has gone, too.
            self._taker.give_up(incoming)
            raise
        taken = await self._taker.transfer(request.name)
        move = taken.device
        answer = handoff_pb2.Taken(
            epoch=taken.epoch,
            resumed_ns=taken.resumed_ns,
            phases=[phase_messages.to_proto(phase) for phase in taken.phases],
            device=device.moved_to_proto(move.before, move.after, move.seen) if move else None,
        )
        await reach(FailPoint.TAKER_TAKEN, request.name)
        yield handoff_pb2.TransferProgress(taken=answer)
        # It goes on when the giver does not wait for it.
        phases = await asyncio.shield(taken.settled)
        settled = handoff_pb2.Settled(phases=[phase_messages.to_proto(phase) for phase in phases])
        yield handoff_pb2.TransferProgress(settled=settled)

    async def Abort(self, request: handoff_pb2.AbortRequest, context: Context) -> handoff_pb2.AbortResponse:
        await self._taker.abort(request.name, expected=request.expected)
        return handoff_pb2.AbortResponse()
