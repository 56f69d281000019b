# SPDX-License-Identifier: GPL-2.0-or-later
"""Wakes up who looks at something when it may have changed, but not while a guest stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


def never() -> bool:
    """For a signal that may always wake somebody up."""
    return False


class Signal:
    """Rung by whatever changes something. For one event loop.

    While `quiet()`, ringing is only noted: a blackout is no time to wake up anybody who need not be.
    """

    def __init__(self, quiet: Callable[[], bool] = never) -> None:
        self.quiet = quiet
        self._noted = False
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something may have changed."""
        self._noted = True
        if not self.quiet():
            self._rung.set()

    async def wait(self, timeout_s: float) -> bool:
        """Until it is rung, or was since the last call; False after `timeout_s` seconds."""
        with suppress(TimeoutError):
            # Not wait_for: of Python 3.11, it may forget that it was cancelled.
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        self._rung.clear()
        rung, self._noted = self._noted, False
        return rung
