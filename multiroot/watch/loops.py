# SPDX-License-Identifier: GPL-2.0-or-later
"""Event loops in which gRPC's asyncio half is used in a program that has, or had, another such loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(forgive)
        return runner.run(work)


def forgive(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of what went wrong in a callback, but for two things that are no fault: all loops of a process
    wake up for gRPC's one pipe, and those that come late find it empty; and a call of a loop that was
    closed may end later.
    """
    late = isinstance(context.get("exception"), BlockingIOError | RuntimeError)
    if not (late and "PollerCompletionQueue" in repr(context.get("handle"))):
        loop.default_exception_handler(context)
