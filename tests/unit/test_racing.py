# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that is wanted only until something else happens: nothing goes on behind its caller."""

from __future__ import annotations

import asyncio

import pytest

from multiroot.racing import OvertakenError, unless


async def forever() -> int:
    await asyncio.Event().wait()
    return 0


async def at_once() -> int:
    return 7


async def fails() -> int:
    raise ValueError("no luck")


class Slow:
    """Work that takes its time to end when it is cancelled."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), False

    async def work(self) -> int:
        try:
            self.begun.set()
            return await forever()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended = True


async def test_work_that_ends_first_is_the_answer() -> None:
    assert await unless(at_once(), forever()) == 7
    with pytest.raises(ValueError, match="no luck"):
        await unless(fails(), forever())


async def test_work_that_ends_together_with_the_other_counts() -> None:
    assert await unless(at_once(), at_once()) == 7


async def test_the_other_ends_it() -> None:
    slow = Slow()
    with pytest.raises(OvertakenError):
        await unless(slow.work(), slow.begun.wait())
    assert slow.ended


async def test_what_the_other_raises_is_raised() -> None:
    slow = Slow()

    async def after() -> None:
        await slow.begun.wait()
        await fails()

    with pytest.raises(ValueError, match="no luck"):
        await unless(slow.work(), after())
    assert slow.ended


async def test_who_is_cancelled_leaves_neither() -> None:
    work, other = Slow(), Slow()
    task = asyncio.create_task(unless(work.work(), other.work()))
    await work.begun.wait()
    await other.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended
    assert other.ended
