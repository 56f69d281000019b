# SPDX-License-Identifier: GPL-2.0-or-later
"""FailPointService: the lab's orders for this agent."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any, TypeVar

from multiroot.errors import BadRequestError, WaitTimeoutError
from multiroot.failpoints import ORDERS, Action, FailPoint, Order
from multiroot.rpc.v1 import failpoint_pb2, failpoint_pb2_grpc

Word = TypeVar("Word", bound=StrEnum)


class FailPointService(failpoint_pb2_grpc.FailPointServiceServicer):
    """Errors are raised as MultirootError; the server's interceptor turns them into statuses."""

    async def Arm(self, request: failpoint_pb2.ArmRequest, context: Any) -> failpoint_pb2.ArmResponse:
        ORDERS.arm(
            Order(
                _word(FailPoint, request.point),
                _word(Action, request.action),
                request.about,
                request.seconds,
                request.times or 1,
            )
        )
        return failpoint_pb2.ArmResponse()

    async def AwaitReached(
        self, request: failpoint_pb2.AwaitReachedRequest, context: Any
    ) -> failpoint_pb2.AwaitReachedResponse:
        point = _word(FailPoint, request.point)
        if not await asyncio.to_thread(ORDERS.wait_reached, point, request.timeout_s):
            raise WaitTimeoutError(f"{point} was not reached within {request.timeout_s:g} s")
        return failpoint_pb2.AwaitReachedResponse()

    async def Disarm(
        self, request: failpoint_pb2.DisarmRequest, context: Any
    ) -> failpoint_pb2.DisarmResponse:
        for point in (_word(FailPoint, request.point),) if request.point else FailPoint:
            ORDERS.release(point)
        return failpoint_pb2.DisarmResponse()


def _word(kind: type[Word], text: str) -> Word:
    try:
        return kind(text)
    except ValueError as error:
        raise BadRequestError(f"unknown: {text!r}", f"one of {', '.join(kind)}") from error
