# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a recording back at its own pace or another, as if its run happened now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from multiroot.watch.events import Event
from multiroot.watch.recording import Recording

UNKNOWN_NS = 1  # what was told before the machine's clock was known is told at once


async def play(
    recording: Recording,
    speed: float = 1.0,
    *,
    clock: Callable[[], float] | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncIterator[Event]:
    """The events of a recording, each `speed` times as soon as it came; all at once if `speed` is 0.

    They keep their `at`. `clock` (seconds) and `sleep` are for tests. Raises what `Recording.events` raises.
    """
    now = clock or asyncio.get_running_loop().time
    began, first = now(), None
    for event in recording.events():
        if event.at > UNKNOWN_NS:
            first = event.at if first is None else first
        if speed and first is not None:
            due = began + (event.at - first) / 1e9 / speed
            # A recording has many events of one moment: none of them waits.
            if (wait := due - now()) > 0:
                await sleep(wait)
        yield event
