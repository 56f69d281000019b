# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent answers once it has learned how: it begins with few calls and imports the rest meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from multiroot.errors import MultirootError
from multiroot.rpc.server import Continuation, refuse


class Services(grpc.GenericRpcHandler):
    """The services of all of an agent's servers. Some may be added when a server has already begun to answer.

    It takes the place of a server where services are added.
    """

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As of a server."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Generated code tells a server of all methods twice, in case that it needs no generic handlers."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found = (handler.service(handler_call_details) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)


class Gate(grpc.aio.ServerInterceptor):
    """Holds calls back until it is opened, but for those of the methods `at_once`, by their full names."""

    def __init__(self, *at_once: str) -> None:
        self._at_once = at_once
        self._settled = asyncio.Event()
        self._error: MultirootError | None = None

    def open(self) -> None:
        """Let all calls pass, those that wait first."""
        self._settled.set()

    def fail(self, error: MultirootError) -> None:
        """End all calls that wait, and those that come, with `error`."""
        self._error = error
        self._settled.set()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        if handler_call_details.method not in self._at_once:
            await self._settled.wait()
            if self._error is not None:
                return refuse(self._error)
        return await continuation(handler_call_details)
