# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that is wanted only until something else happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class OvertakenError(Exception):
    """What would end the work happened before its end."""


async def unless(work: Awaitable[T], other: Awaitable[object]) -> T:
    """What the work comes to. Raises OvertakenError, or what `other` raises, if that is done before.

    Neither is under way when this is left, however it is left: who takes back what the work has made must
    not do so beside it. So work that ends late when it is cancelled is waited for.
    """
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(other)
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        waiting.result()
        raise OvertakenError
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
