# SPDX-License-Identifier: GPL-2.0-or-later
"""A handoff that fails at any of its fail points leaves one copy of the guest running, and then works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from multiroot.errors import MultirootError
from multiroot.failpoints import ANSWERS, CALLS, ORDERS, Action, FailPoint, Order
from multiroot.handoff import giver
from multiroot.vm.qemu.vmm import QemuVmm

from .harness import Root, assert_runs_only_in, hand, start_vm

FAILS = [
    point
    for point in FailPoint
    if point.partition(".")[0] in ("giver", "taker")
    and point not in (FailPoint.GIVER_SETTLE, FailPoint.GIVER_ABORT)
]
# From here on the guest is the taker's, whatever fails.
GOES = (FailPoint.GIVER_TAKEN, FailPoint.TAKER_RESUMED, FailPoint.TAKER_TAKEN)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(giver, "PREPARE_TIMEOUT_S", 3.0)
    monkeypatch.setattr(giver, "TRANSFER_TIMEOUT_S", 3.0)
    yield
    for point in FailPoint:
        ORDERS.release(point)


async def fail_once(roots: tuple[Root, Root], order: Order) -> None:
    """Hand over with the order armed; then see where the guest runs, and hand it to the other root."""
    here, there = roots
    await start_vm(here)
    ORDERS.arm(order)
    with suppress(MultirootError):
        await hand(here, there)
    assert ORDERS.wait_reached(order.point, 0)
    runs_in, other = (there, here) if order.point in GOES else (here, there)
    await assert_runs_only_in(runs_in, other)
    await hand(runs_in, other)
    await assert_runs_only_in(other, runs_in)


@pytest.mark.parametrize("point", FAILS)
async def test_what_fails_there(roots: tuple[Root, Root], point: FailPoint) -> None:
    await fail_once(roots, Order(point, Action.RAISE))


@pytest.mark.parametrize("point", [each for each in (*CALLS, *ANSWERS) if each in FAILS])
async def test_a_message_is_lost_there(roots: tuple[Root, Root], point: FailPoint) -> None:
    await fail_once(roots, Order(point, Action.DROP))


@pytest.mark.parametrize("point", [FailPoint.TAKER_LOADED, FailPoint.TAKER_OWNED])
async def test_a_vmm_that_dies_in_the_taker_before_it_runs_the_guest(
    roots: tuple[Root, Root], point: FailPoint
) -> None:
    """The guest has not run there, so it goes on in the giver, whoever owned it at that moment."""
    here, there = roots
    await start_vm(here)
    ORDERS.arm(Order(point, Action.PAUSE))
    handing = asyncio.create_task(hand(here, there))
    assert await asyncio.to_thread(ORDERS.wait_reached, point, 30)
    vmm = there.manager.get("vm0").vmm
    assert isinstance(vmm, QemuVmm)
    assert vmm.running
    await vmm.running.kill()
    ORDERS.release(point)
    with pytest.raises(MultirootError, match="QEMU went away before cont"):
        await handing
    await assert_runs_only_in(here, there)
    await hand(here, there)
    await assert_runs_only_in(there, here)


@pytest.mark.parametrize("point", [FailPoint.GIVER_WIRE, FailPoint.GIVER_STREAM])
async def test_a_taker_that_gets_garbage_refuses_it(roots: tuple[Root, Root], point: FailPoint) -> None:
    await fail_once(roots, Order(point, Action.GARBAGE))
