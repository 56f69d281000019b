# SPDX-License-Identifier: GPL-2.0-or-later
"""Named places in the agent where the lab can make something go wrong.

Nothing happens at a fail point unless an order for it was armed, and orders come only to an agent that was
started with `--failpoints`. Without orders, a fail point costs one look at an empty dictionary: some of them
are in the blackout.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from pathlib import Path

from multiroot.errors import BadRequestError, CommandError, WaitTimeoutError

FILE = Path("/run/multiroot/failpoints")  # orders for an agent that is about to start
LONGEST_PAUSE_S = 600.0
CRASHED = 70  # exit code of an agent that was told to end
GARBAGE_SIZE = 4096


class FailPoint(StrEnum):
    """Every fail point. `MEANINGS` says where each is."""

    AGENT_START = "agent.start"
    AGENT_ADOPTED = "agent.adopted"
    STEP_BEGUN = "coordinator.step-begun"
    STEP_DONE = "coordinator.step-done"
    UNDO_BEGUN = "coordinator.undo-begun"
    UNDO_DONE = "coordinator.undo-done"
    GIVER_PREPARE = "giver.prepare"
    GIVER_PREPARED = "giver.prepared"
    GIVER_WIRE = "giver.wire"
    GIVER_STREAM = "giver.stream"
    GIVER_TRANSFER = "giver.transfer"
    GIVER_READY = "giver.ready"
    GIVER_SENDING = "giver.sending"
    GIVER_TAKEN = "giver.taken"
    GIVER_SETTLE = "giver.settle"
    GIVER_ABORT = "giver.abort"
    TAKER_PREPARE = "taker.prepare"
    TAKER_PREPARED = "taker.prepared"
    TAKER_READY = "taker.ready"
    TAKER_LOADED = "taker.loaded"
    TAKER_OWNED = "taker.owned"
    TAKER_RESUMED = "taker.resumed"
    TAKER_TAKEN = "taker.taken"


MEANINGS = {
    FailPoint.AGENT_START: "the agent starts and has looked at nothing yet",
    FailPoint.AGENT_ADOPTED: "the agent has found its VMs again and not yet looked at the journal",
    FailPoint.STEP_BEGUN: "the journal says that a step begins; nothing of it has happened",
    FailPoint.STEP_DONE: "a step is done and the journal does not say so yet",
    FailPoint.UNDO_BEGUN: "the journal says that a step is being undone; nothing of that has happened",
    FailPoint.UNDO_DONE: "a step is undone and the journal does not say so yet",
    FailPoint.GIVER_PREPARE: "the giver is about to send Prepare",
    FailPoint.GIVER_PREPARED: "the taker's VMM waits; nothing is connected to it",
    FailPoint.GIVER_WIRE: "the giver has connected to the taker",
    FailPoint.GIVER_STREAM: "the giver's VMM is about to get the connection",
    FailPoint.GIVER_TRANSFER: "both VMMs are connected; the giver is about to send Transfer",
    FailPoint.GIVER_READY: "the taker is ready; the guest still runs in the giver",
    FailPoint.GIVER_SENDING: "the giver's VMM was told to stop the guest and to send the device state",
    FailPoint.GIVER_TAKEN: "the giver knows that the taker runs the guest; the giver's VMM is still there",
    FailPoint.GIVER_SETTLE: "the handoff failed; the giver is about to raise the owner word",
    FailPoint.GIVER_ABORT: "the guest goes on in the giver, which is about to send Abort",
    FailPoint.TAKER_PREPARE: "the taker has got Prepare and done nothing about it",
    FailPoint.TAKER_PREPARED: "the taker's VMM waits; the answer to Prepare is about to be sent",
    FailPoint.TAKER_READY: "the taker is about to say that it is ready",
    FailPoint.TAKER_LOADED: "the device state is loaded; the giver still owns the VM",
    FailPoint.TAKER_OWNED: "the taker owns the VM; the guest does not run yet",
    FailPoint.TAKER_RESUMED: "the guest runs in the taker, whose records do not say so yet",
    FailPoint.TAKER_TAKEN: "the taker is about to say that it has the VM",
}

# Where nothing can fail, so that nothing is there to deal with it.
_SURE = (FailPoint.GIVER_SETTLE,)
# Where the giver is about to send a message, and where the taker is about to answer one.
CALLS = (FailPoint.GIVER_PREPARE, FailPoint.GIVER_TRANSFER, FailPoint.GIVER_ABORT)
ANSWERS = (FailPoint.TAKER_PREPARED, FailPoint.TAKER_READY, FailPoint.TAKER_TAKEN)


class Action(StrEnum):
    """What can happen at a fail point."""

    PAUSE = "pause"  # go on after some seconds, or when released
    EXIT = "exit"  # the agent ends at once, as if killed
    RAISE = "raise"  # what is being done fails, as when a program refuses
    DROP = "drop"  # a message is not sent; whoever waits for it waits until it gives up
    GARBAGE = "garbage"  # random bytes come before the device state: on the wire, or out of the giver's VMM


@dataclass(frozen=True)
class Order:
    """What is to happen at a fail point, `times` times.

    `about` is the VM or the step that is meant, "" means any. `seconds` is how long to pause; 0 means until
    released, ten minutes at most.
    """

    point: FailPoint
    action: Action
    about: str = ""
    seconds: float = 0.0
    times: int = 1

    def checked(self) -> Order:
        """Itself; BadRequestError if that can't happen there."""
        where: Sequence[FailPoint] = tuple(FailPoint)
        if self.action is Action.DROP:
            where = (*CALLS, *ANSWERS)
        elif self.action is Action.GARBAGE:
            where = (FailPoint.GIVER_WIRE, FailPoint.GIVER_STREAM)
        elif self.action is Action.RAISE:
            where = [point for point in FailPoint if point not in _SURE]
        if self.point not in where:
            raise BadRequestError(f"there is no {self.action} at {self.point}", f"use {', '.join(where)}")
        if not 0 <= self.seconds <= LONGEST_PAUSE_S or self.times < 1:
            raise BadRequestError(f"a pause lasts 0 to {LONGEST_PAUSE_S:g} s, and happens at least once")
        return self


@dataclass
class Orders:
    """The orders of one process. Any thread may ask for them."""

    armed: dict[FailPoint, Order] = field(default_factory=dict)
    _left: Counter[FailPoint] = field(default_factory=Counter)
    _reached: Counter[FailPoint] = field(default_factory=Counter)
    _released: dict[FailPoint, threading.Event] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def arm(self, order: Order) -> None:
        """Have it obeyed from now on, in place of an earlier one for the same point. BadRequestError."""
        order.checked()
        self.release(order.point)
        with self._changed:
            self._left[order.point] = order.times
            self._reached[order.point] = 0
            self._released[order.point] = threading.Event()
            self.armed[order.point] = order

    def release(self, point: FailPoint) -> None:
        """Let whoever pauses there go on, and forget the order."""
        with self._changed:
            self.armed.pop(point, None)
            released = self._released.pop(point, None)
        if released:
            released.set()

    def wait_reached(self, point: FailPoint, timeout_s: float) -> bool:
        """Block until an armed point is reached; False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._reached[point]), timeout_s)

    def due(self, point: FailPoint, about: str) -> Order | None:
        """The order to obey now, counted as obeyed."""
        with self._changed:
            order = self.armed.get(point)
            if order is None or order.about not in ("", about):
                return None
            self._left[point] -= 1
            if not self._left[point]:
                del self.armed[point]
            self._reached[point] += 1
            self._changed.notify_all()
            return order

    def pause(self, order: Order) -> None:
        """Block as ordered."""
        with self._changed:
            released = self._released.get(order.point)
        if released:
            released.wait(order.seconds or LONGEST_PAUSE_S)


ORDERS = Orders()


async def reach(point: FailPoint, about: str = "") -> None:
    """A fail point in a coroutine; raises what was ordered."""
    if ORDERS.armed:
        await _obeyed(point, about)


def reach_in_thread(point: FailPoint, about: str = "") -> None:
    """A fail point in a thread that may block; raises what was ordered."""
    if ORDERS.armed and (order := ORDERS.due(point, about)):
        if order.action is Action.PAUSE:
            ORDERS.pause(order)
        _obey(order)


async def garbage(point: FailPoint, about: str = "") -> bytes:
    """A fail point before bytes that are sent: what is to be sent before them. Raises what was ordered."""
    order = await _obeyed(point, about) if ORDERS.armed else None
    return os.urandom(GARBAGE_SIZE) if order and order.action is Action.GARBAGE else b""


async def _obeyed(point: FailPoint, about: str) -> Order | None:
    order = ORDERS.due(point, about)
    if order is None:
        return None
    if order.action is Action.PAUSE:
        await asyncio.to_thread(ORDERS.pause, order)
    elif order.action is Action.DROP and point in ANSWERS:
        # The call ends when the caller gives up.
        await asyncio.get_running_loop().create_future()
    _obey(order)
    return order


def _obey(order: Order) -> None:
    if order.action is Action.EXIT:
        os._exit(CRASHED)
    if order.action is Action.DROP:
        raise WaitTimeoutError(f"nobody answered: the message was dropped at {order.point}")
    if order.action is Action.RAISE:
        raise CommandError(f"ordered at fail point {order.point}")


def read_orders(path: Path = FILE) -> list[Order]:
    """The orders in a file, which is removed; none if there is no file.

    It lets the lab reach what an agent does before it answers calls. Raises BadRequestError for a file that
    others than root may write.
    """
    try:
        found = path.stat()
        text = path.read_text()
        path.unlink()
    except FileNotFoundError:
        return []
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise BadRequestError(f"{path} may be written by others", f"run `chmod 600 {path}`")
    return [
        Order(FailPoint(point), Action(action), about, seconds, times)
        for point, action, about, seconds, times in json.loads(text)
    ]


def write_orders(orders: Sequence[Order]) -> str:
    """The text of a file for `read_orders`."""
    return json.dumps([astuple(order) for order in orders])
