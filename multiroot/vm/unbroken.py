# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations that go on to their end when whoever has asked for them goes away, as one does by Ctrl-C, or
wants them no more.

Half of one would leave a VMM that nobody knows, or memory that no VM has.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from multiroot.errors import MultirootError

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_under_way: set[asyncio.Task[Any]] = set()  # a loop alone does not keep its tasks


def unbroken(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The operation, which is not cancelled with the task that waits for it."""
    return _shielded(operation, to_its_end=False)


def finished(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same, for those who look afterwards at what it has made: a task that is cancelled while it waits
    for the operation waits for its end before that takes effect.
    """
    return _shielded(operation, to_its_end=True)


def _shielded(
    operation: Callable[P, Coroutine[Any, Any, T]], *, to_its_end: bool
) -> Callable[P, Coroutine[Any, Any, T]]:
    @functools.wraps(operation)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.create_task(operation(*args, **kwargs))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell)
            if to_its_end:
                await asyncio.wait({task})
            raise

    return whole


def _tell(task: asyncio.Task[Any]) -> None:
    """Nobody else hears of it any more."""
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, MultirootError):
        log.warning("%s", error)
    elif error:
        log.error("an operation that nobody waits for failed", exc_info=error)
