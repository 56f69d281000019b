# SPDX-License-Identifier: GPL-2.0-or-later
"""What every agent's server does around its services: pass calls on, turn our errors into statuses."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message

from multiroot.errors import BadRequestError, BugError, MultirootError
from multiroot.rpc import border, status

log = logging.getLogger("multirootd")

# A caller names the root it means; an agent that is not that root passes the call on to its peer.
ROOT_KEY = "multiroot-root"
_OURS = "/multiroot.v1."
_PORT_FREE_S = 10  # after which a port is another's for good

# Generic only in grpc's type stubs, hence the quotes.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
PeerChannel = Callable[[str], grpc.aio.Channel]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Looks at requests. Ends calls in which a MultirootError was raised with the status that carries it.

    Anything else that a service raises is a bug. The traceback goes to the log, and the caller learns of it.
    """

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_OURS):
            return handler
        if handler.response_streaming:
            return _guard_stream(handler)
        return _guard_unary(handler)


def _guard_unary(handler: Handler) -> Handler:
    inner: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await inner(_checked(request), context)
        except Exception as error:  # noqa: BLE001 - what nobody expected ends one call and not the agent
            await status.abort(context, _explained(error))

    make: Any = (
        grpc.stream_unary_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    made: Handler = make(call, handler.request_deserializer, handler.response_serializer)
    return made


def _guard_stream(handler: Handler) -> Handler:
    inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in inner(_checked(request), context):
                yield response
        except Exception as error:  # noqa: BLE001 - see above
            await status.abort(context, _explained(error))

    make: Any = (
        grpc.stream_stream_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_stream_rpc_method_handler
    )
    made: Handler = make(call, handler.request_deserializer, handler.response_serializer)
    return made


def _explained(error: Exception) -> MultirootError:
    """What to end a call with."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, grpc.RpcError):
        return status.decode(error, "the other root's agent")
    if isinstance(error, MultirootError):
        return error
    log.error("a call failed in a way that nobody expected", exc_info=error)
    return BugError(
        f"this is a bug in the agent: {type(error).__name__}: {error}", "its log has the traceback"
    )


def _checked(request: Any) -> Any:
    """A request, or a stream of them, that has been looked at."""
    if not isinstance(request, Message):
        return border.checked(request)
    border.check(request)
    return request


class RelayInterceptor(grpc.aio.ServerInterceptor):
    """Passes calls that name another root on to it, byte for byte: one agent's address reaches all.

    `is_me(name)` tells whether a root's name ("old", "new" or its number) means this root; `channel_to(name)`
    returns the connection to that root or raises a MultirootError.
    """

    def __init__(self, is_me: Callable[[str], bool], channel_to: PeerChannel) -> None:
        self._is_me = is_me
        self._channel_to = channel_to

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        metadata = dict(handler_call_details.invocation_metadata or ())
        name = metadata.get(ROOT_KEY)
        if name is None:
            return await continuation(handler_call_details)
        text = name.decode() if isinstance(name, bytes) else name
        try:
            parse_root_name(text)
            if self._is_me(text):
                return await continuation(handler_call_details)
            channel = self._channel_to(text)
        except MultirootError as error:
            return refuse(error)
        return _relay(channel, handler_call_details.method, text)


def names_root(context: grpc.aio.ServicerContext[Any, Any]) -> bool:
    """Whether the caller has named the root that it means."""
    return any(key == ROOT_KEY for key, _ in context.invocation_metadata() or ())


def refuse(error: MultirootError) -> Handler:
    """A handler that ends every call with `error`."""

    async def call(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        await status.abort(context, error)
        yield b""

    return grpc.stream_stream_rpc_method_handler(call)


class Refusal(grpc.GenericRpcHandler):
    """Stands in for a service that can't be offered here: all its calls end with `error`.

    `service` is the full name, such as multiroot.v1.VmService.
    """

    def __init__(self, service: str, error: MultirootError) -> None:
        self._prefix = f"/{service}/"
        self._error = error

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        ours = handler_call_details.method.startswith(self._prefix)
        return refuse(self._error) if ours else None


def _relay(channel: grpc.aio.Channel, method: str, root: str) -> Handler:
    async def call(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        # There, too, the caller has named a root.
        named = ((ROOT_KEY, root),)
        onward: Any = channel.stream_stream(method)(
            requests, timeout=context.time_remaining(), metadata=named
        )
        try:
            async for response in onward:
                yield response
        except grpc.aio.AioRpcError as error:
            trailing = tuple((key, value) for key, value in error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailing)

    return grpc.stream_stream_rpc_method_handler(call)


def make_server(
    is_me: Callable[[str], bool],
    channel_to: PeerChannel,
    *first: grpc.aio.ServerInterceptor,
    gate: grpc.aio.ServerInterceptor | None = None,
) -> grpc.aio.Server:
    """An agent's server without services or ports; requests of any size up to REQUEST_MOST pass.

    What `first` refuses is not even passed on to another root. What is passed on does not go through `gate`.
    """
    gates = (gate,) if gate else ()
    return grpc.aio.server(
        interceptors=(*first, RelayInterceptor(is_me, channel_to), *gates, ErrorInterceptor()),
        options=(("grpc.max_receive_message_length", border.REQUEST_MOST), ("grpc.so_reuseport", 0)),
    )


def listen_locally(server: grpc.aio.Server, path: Path) -> None:
    """Have `server` listen on the unix socket `path`, which nobody but its owner may ever use.

    Raises MultirootError when it can't.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)  # a socket that is closed to others a moment later was open before
    try:
        listen(server, f"unix:{path}")
    finally:
        os.umask(mask)


def listen(server: grpc.aio.Server, address: str, keys: grpc.ServerCredentials | None = None) -> None:
    """Have `server` listen on a gRPC address, with `keys` by TLS; raises MultirootError when it can't."""
    try:
        if keys is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, keys)
    except RuntimeError as error:
        raise MultirootError(f"cannot listen on {address}: {error}") from error


async def listen_again(server: grpc.aio.Server, address: str, keys: grpc.ServerCredentials) -> None:
    """The same, where a server that was told to stop may have listened until now.

    It lets go of the port in its own time, and tells nobody when.
    """
    until = time.monotonic() + _PORT_FREE_S
    while True:
        try:
            return listen(server, address, keys)
        except MultirootError:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(0.02)


def parse_root_name(name: str) -> str | int:
    """ "old", "new" or a root's number; raises BadRequestError for anything else."""
    if border.ROOT_NAME.fullmatch(name):
        return int(name) if name.isdecimal() else name
    raise BadRequestError(f"not a root: {name[:80]!r}", 'say "old", "new" or a root\'s number')
