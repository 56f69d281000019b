# SPDX-License-Identifier: GPL-2.0-or-later
"""Our errors across the wire: a refusal in the other root reads here exactly as it does there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import grpc.aio

from multiroot import errors
from multiroot.errors import MultirootError, PeerLostError, WaitTimeoutError

# Metadata with a name ending in -bin carries bytes, so any message text passes.
ERROR_KEY = "multiroot-error-bin"
WORDLESS = "an error that came without a message"
# Bytes: a call's metadata must not exceed 8 KiB in all, and some of it grows on the way.
_LONGEST = 2000
_LONGEST_DETAILS = 200
# What gRPC says of a connection, which tells a user no more than that nobody answers.
_GRPC_OWN = re.compile(
    r"deadline exceeded|socket closed|stream removed|failed to connect|connection reset|broken pipe|goaway"
    r"|rst_stream|endpoint closing|connection refused|channel closed|name resolution",
    re.IGNORECASE,
)
_ENDED = re.compile(r"stream removed|rst_stream", re.IGNORECASE)  # comes as an error of the agent's own
_GONE = "it is busy, or its root is gone; in a lab: `multiroot lab status`"

_CODES: dict[type[MultirootError], grpc.StatusCode] = {
    errors.BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WaitTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.PeerLostError: grpc.StatusCode.UNAVAILABLE,
    errors.StrangerError: grpc.StatusCode.UNAUTHENTICATED,
    errors.BugError: grpc.StatusCode.INTERNAL,
}

_KINDS: dict[str, type[MultirootError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, MultirootError)
}


def encode(error: MultirootError) -> tuple[grpc.StatusCode, tuple[tuple[str, bytes], ...]]:
    """The status code and trailing metadata that carry `error`."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.ABORTED)
    kind = next(
        (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS),
        "MultirootError",
    )
    record = {"kind": kind, "message": _short(error.message), "hint": _short(error.hint)}
    return code, ((ERROR_KEY, json.dumps(record, ensure_ascii=False).encode()),)


def _short(text: str, limit: int = _LONGEST) -> str:
    """As much of a text as fits into a call's metadata, without what UTF-8 cannot say."""
    return text.encode(errors="backslashreplace")[:limit].decode(errors="ignore")


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: MultirootError) -> NoReturn:
    """End the current call with `error`."""
    code, trailing = encode(error)
    await context.abort(code, _short(error.message, _LONGEST_DETAILS), trailing)
    raise AssertionError("abort returned")


def decode(error: grpc.RpcError, who: str) -> MultirootError:
    """The MultirootError that a failed call means; `who` names the other side ("the new root's agent")."""
    trailing: Any = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == ERROR_KEY and (carried := _carried(value)):
            return carried
    code, details = error.code(), error.details() or ""
    hint = _GONE if not details or _GRPC_OWN.search(details) else details
    if code is grpc.StatusCode.UNAVAILABLE:
        return PeerLostError(f"{who} does not answer", hint)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return WaitTimeoutError(f"{who} did not answer in time", hint)
    if _ENDED.search(details):
        return PeerLostError(f"{who} has gone amid a call", _GONE)
    return MultirootError(f"{who} failed: {details or code.name}")


def _carried(value: bytes) -> MultirootError | None:
    """The error in a record of `encode`, None for anything else: whoever sent it may be broken."""
    try:
        record = json.loads(value)
        kind, message, hint = (record[name] for name in ("kind", "message", "hint"))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not (isinstance(message, str) and isinstance(hint, str)):
        return None
    # Without a word there would be no line for a user.
    return _KINDS.get(str(kind), MultirootError)(message if message.strip() else WORDLESS, hint)


@contextmanager
def translated(who: str) -> Iterator[None]:
    """Raise what a failed call inside the body means instead of grpc's own error."""
    try:
        yield
    except grpc.RpcError as error:
        raise decode(error, who) from error
    except asyncio.CancelledError as error:
        # Who closes a channel, because the other root has ended, cancels the calls that are under way on it.
        # They look as if their callers had been cancelled.
        if _is_cancelled():
            raise
        raise PeerLostError(f"{who} has gone amid a call") from error


def _is_cancelled() -> bool:
    """Whether somebody has asked the task that runs this to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
