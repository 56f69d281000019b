# SPDX-License-Identifier: GPL-2.0-or-later
"""Fail points: obeyed only when ordered, each in one place of the code, all of them described."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot import failpoints
from multiroot.errors import BadRequestError, CommandError, WaitTimeoutError
from multiroot.failpoints import MEANINGS, ORDERS, Action, FailPoint, Order

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    for point in FailPoint:
        ORDERS.release(point)


def test_every_point_is_reached_in_one_place_of_the_agent() -> None:
    parts = ("agent", "coordinator", "handoff")
    code = [path.read_text() for part in parts for path in (TOP / "multiroot" / part).rglob("*.py")]
    places = Counter(re.findall(r"FailPoint\.(\w+)", "\n".join(code)))
    assert places == {point.name: 1 for point in FailPoint}


def test_the_docs_have_every_point_with_its_meaning() -> None:
    rows = re.findall(r"^\| `([a-z.-]+)` \| (.*) \|$", (TOP / "docs/faults.md").read_text(), re.MULTILINE)
    assert [row for row in rows if row[0] in list(FailPoint)] == [
        (point.value, MEANINGS[point]) for point in FailPoint
    ]


async def test_nothing_happens_without_an_order() -> None:
    await failpoints.reach(FailPoint.TAKER_OWNED, "vm0")
    failpoints.reach_in_thread(FailPoint.TAKER_OWNED, "vm0")
    assert await failpoints.garbage(FailPoint.GIVER_STREAM, "vm0") == b""


async def test_an_order_is_obeyed_as_often_as_it_says_and_by_nobody_else() -> None:
    ORDERS.arm(Order(FailPoint.TAKER_PREPARE, Action.RAISE, "vm0", times=2))
    await failpoints.reach(FailPoint.TAKER_PREPARE, "vm1")
    await failpoints.reach(FailPoint.TAKER_PREPARED, "vm0")
    for _ in range(2):
        with pytest.raises(CommandError, match=r"taker\.prepare"):
            await failpoints.reach(FailPoint.TAKER_PREPARE, "vm0")
    await failpoints.reach(FailPoint.TAKER_PREPARE, "vm0")


async def test_a_pause_lasts_until_it_is_released() -> None:
    ORDERS.arm(Order(FailPoint.TAKER_LOADED, Action.PAUSE))
    thread = asyncio.create_task(asyncio.to_thread(failpoints.reach_in_thread, FailPoint.TAKER_LOADED))
    assert await asyncio.to_thread(ORDERS.wait_reached, FailPoint.TAKER_LOADED, 30)
    assert not thread.done()
    ORDERS.release(FailPoint.TAKER_LOADED)
    await asyncio.wait_for(thread, 30)


async def test_a_pause_ends_by_itself() -> None:
    ORDERS.arm(Order(FailPoint.GIVER_READY, Action.PAUSE, seconds=0.001))
    await asyncio.wait_for(failpoints.reach(FailPoint.GIVER_READY), 30)
    assert ORDERS.wait_reached(FailPoint.GIVER_READY, 0)


async def test_a_dropped_call_fails_and_a_dropped_answer_never_comes() -> None:
    ORDERS.arm(Order(FailPoint.GIVER_PREPARE, Action.DROP))
    with pytest.raises(WaitTimeoutError):
        await failpoints.reach(FailPoint.GIVER_PREPARE)
    ORDERS.arm(Order(FailPoint.TAKER_TAKEN, Action.DROP))
    answer = asyncio.create_task(failpoints.reach(FailPoint.TAKER_TAKEN))
    assert await asyncio.to_thread(ORDERS.wait_reached, FailPoint.TAKER_TAKEN, 30)
    assert not answer.done()
    answer.cancel()


async def test_garbage_comes_before_the_device_state() -> None:
    ORDERS.arm(Order(FailPoint.GIVER_STREAM, Action.GARBAGE))
    assert len(await failpoints.garbage(FailPoint.GIVER_STREAM)) == failpoints.GARBAGE_SIZE


@pytest.mark.parametrize(
    "order",
    [
        Order(FailPoint.TAKER_OWNED, Action.DROP),
        Order(FailPoint.TAKER_OWNED, Action.GARBAGE),
        Order(FailPoint.GIVER_SETTLE, Action.RAISE),
        Order(FailPoint.TAKER_OWNED, Action.PAUSE, seconds=-1),
        Order(FailPoint.TAKER_OWNED, Action.PAUSE, times=0),
    ],
)
def test_what_cannot_happen_is_refused(order: Order) -> None:
    with pytest.raises(BadRequestError):
        ORDERS.arm(order)
    assert not ORDERS.armed


def test_a_file_of_orders_is_read_once_and_only_if_it_is_nobody_elses(tmp_path: Path) -> None:
    wanted = [
        Order(FailPoint.AGENT_START, Action.EXIT),
        Order(FailPoint.STEP_DONE, Action.PAUSE, "carve", 2.0),
    ]
    path = tmp_path / "failpoints"
    assert failpoints.read_orders(path) == []
    path.write_text(failpoints.write_orders(wanted))
    path.chmod(0o600)
    assert failpoints.read_orders(path) == wanted
    assert not path.exists()
    path.write_text(failpoints.write_orders(wanted))
    path.chmod(0o620)
    with pytest.raises(BadRequestError, match="written by others"):
        failpoints.read_orders(path)
