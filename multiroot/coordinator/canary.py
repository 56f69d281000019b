# SPDX-License-Identifier: GPL-2.0-or-later
"""The canary: a small VM of our own goes to the new root and back before any other VM is touched.

What a handoff needs is tried by doing it: this root gives, the new one takes, runs and gives, this one takes.
The guest counts its ticks and checks its memory all the time, so a handoff that only seems to work is seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from multiroot.arena.layout import CANARY
from multiroot.errors import MultirootError
from multiroot.handoff.errors import OverdueError
from multiroot.handoff.terms import Terms, more_downtime
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.racing import OvertakenError, unless
from multiroot.units import MIB
from multiroot.vm.definition import VmDefinition
from multiroot.vm.ticks import Stretch, continuity

log = logging.getLogger("multirootd")

GUEST = "ticker"
# Kernel 6.12 unpacks itself and its initrd in 80 MiB and not in 72; the rest is for kernels that are larger.
RAM_BYTES = 96 * MIB
REGION = 4 * MIB  # what the guest checks
REPORT_TICKS = 64  # so often it reports; it has checked all of the region once more by then
# Between any two of its reports the whole region was checked where the guest runs now.
ENOUGH_TICKS = 2 * REPORT_TICKS

# Under nested emulation a guest falls silent now and then while it boots: no fault of either root.
BOOTS = 3
BOOT_S = 120.0
MOVE_S = 240.0  # a giver waits 180 s for Prepare and 30 s for Transfer
TICKS_S = 60.0
STOP_S = 30.0
AGAIN_S = 2.0  # so often a canary that does not end is told to; what keeps it is in the other root

T = TypeVar("T")

HINT = (
    "VMs stay where they are: `multiroot update abort` takes the update back, `multiroot update resume` tries"
    " again, `multiroot update resume --no-canary` goes on without the canary"
)

DEFINITION = VmDefinition(CANARY, ram_bytes=RAM_BYTES, guest=GUEST, append=f"ticker.region={REGION // MIB}")


@dataclass(frozen=True)
class CanaryVm:
    """What is done with the VM. `run` starts it in this root. `hand_over` keeps to the terms.

    `ticks_here` and `ticks_there` wait for a number of ticks in this root or the new one and return all that
    were seen there. `stop` ends the VM in whatever root it is, and does nothing if it is nowhere.
    """

    run: Callable[[], Awaitable[object]]
    hand_over: Callable[[Terms], Awaitable[object]]
    hand_back: Callable[[], Awaitable[object]]
    ticks_here: Callable[[int], Awaitable[Stretch]]
    ticks_there: Callable[[int], Awaitable[Stretch]]
    stop: Callable[[], Awaitable[object]]


class Canary:
    """Runs the VM, one at a time, and sees to it that nothing of it is left."""

    def __init__(self, vm: CanaryVm, phases: Phases) -> None:
        self._vm = vm
        self._phases = phases
        self._lock = asyncio.Lock()
        self._waiting = False  # for its guest, which nobody hands over just now
        self._cancelled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ahead: asyncio.Task[bool] | None = None

    def boot_ahead(self) -> None:
        """Begin to boot the VM in this root, for `prove`. What fails is tried again there, and so is what an
        earlier attempt is in the way of.
        """
        if self._ahead is None and not self._lock.locked():
            self._ahead = asyncio.create_task(self._boot_early())

    async def prove(self, terms: Terms) -> None:
        """Hand the VM to the new root on these terms, and back. Raises MultirootError that says what failed.

        Whatever happens, the VM is ended. If its root does not answer, that goes on behind the caller's back.
        """
        async with self._lock:
            with self._phases.phase(PhaseName.CANARY) as told:
                if self._ahead is None:
                    await self._end("of an earlier attempt did not end")
                try:
                    if not await self._booted_ahead():
                        await self._boot()
                    told["ticks"] = await self._there_and_back(terms)
                    await self._end("did not end")
                except BaseException:
                    await asyncio.shield(self._in_background(self._give_up()))
                    raise

    def cancel(self) -> bool:
        """Give up what `prove` has begun, if it waits for the guest; whether it does. A handoff of the canary
        that is under way is cancelled as any other.
        """
        if self._waiting:
            self._cancelled.set()
        return self._waiting

    def stay(self) -> None:
        """Go no further with what `prove` has begun: its guest is waited for no longer."""
        if self._lock.locked():
            self._cancelled.set()

    async def remove(self) -> None:
        """End a VM that an earlier attempt has left; raises MultirootError if it does not end."""
        await self._forget_ahead()
        async with self._lock:
            await self._end("of an earlier attempt did not end")

    def remove_later(self) -> None:
        """The same in the background, again and again until it has ended."""
        self._in_background(self._remove_at_last())

    async def _there_and_back(self, terms: Terms) -> int:
        """How often the guest ticked."""
        async with _failing("did not go to the new root", MOVE_S):
            await self._vm.hand_over(terms)
        async with _failing("did not run on in the new root", TICKS_S):
            there = await self._guest(self._vm.ticks_there(ENOUGH_TICKS))
            here = await self._vm.ticks_here(0)
            judge(here.then(there), there)
        async with _failing("did not come back from the new root", MOVE_S):
            await self._vm.hand_back()
        async with _failing("did not run on in this root after it had come back", TICKS_S):
            back = await self._guest(self._vm.ticks_here(ENOUGH_TICKS))
            # Again: it ticked on there until it left.
            there = await self._vm.ticks_there(0)
            return judge(here.then(there).then(back), back)

    async def _boot_early(self) -> bool:
        """Whether it has booted."""
        try:
            await self._end("of an earlier attempt did not end")
            async with _failing("could not be started", BOOT_S):
                await self._vm.run()
            async with _failing("did not boot in this root", BOOT_S):
                await self._vm.ticks_here(REPORT_TICKS)
        except MultirootError as error:
            log.warning("%s; once more when it is needed", error.message)
            return False
        return True

    async def _booted_ahead(self) -> bool:
        """Whether it waits in this root, where it was started before; one that still boots is waited for."""
        self._cancelled.clear()
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return False
        async with _failing("did not boot in this root", BOOT_S):
            booted = await self._guest(ahead)
        if not booted:
            await self._end("that did not boot did not end")
        return booted

    async def _forget_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait({ahead})

    async def _boot(self) -> None:
        for left in reversed(range(BOOTS)):
            async with _failing("could not be started", BOOT_S):
                await self._vm.run()
            try:
                async with _failing("did not boot in this root", BOOT_S):
                    await self._guest(self._vm.ticks_here(REPORT_TICKS))
            except MultirootError as error:
                if not left or self._cancelled.is_set():
                    raise
                log.warning("%s; once more", error.message)
                await self._end("that did not boot did not end")
            else:
                return

    async def _guest(self, waiting: Awaitable[T]) -> T:
        """What the guest says; raises MultirootError if it is cancelled before."""
        self._waiting = True
        try:
            return await unless(waiting, self._cancelled.wait())
        except OvertakenError:
            raise MultirootError("it was cancelled") from None
        finally:
            self._waiting = False

    async def _end(self, what: str) -> None:
        async with _failing(what, STOP_S):
            await self._vm.stop()

    async def _give_up(self) -> None:
        try:
            await self._end("did not end")
        except MultirootError as error:
            log.warning("%s", error.message)
            self.remove_later()

    async def _remove_at_last(self) -> None:
        said = ""
        while True:
            try:
                return await self.remove()
            except MultirootError as error:
                if error.message != said:
                    log.warning("%s", error.message)
                said = error.message
            await asyncio.sleep(AGAIN_S)

    def _in_background(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def judge(whole: Stretch, last: Stretch) -> int:
    """How often the guest ticked in all; raises MultirootError if anything is wrong with it.

    `whole` is all that it said, `last` the part of it in the root where it was last.
    """
    seen, now = continuity(whole.ticks), continuity(last.ticks)
    if seen is None or now is None or len(now.reports) < 2:
        raise MultirootError("the guest does not tell of its memory")
    checked = now.reports[-1].checked_bytes - now.reports[0].checked_bytes
    wrong = {
        "ticks are missing": len(seen.missing),
        "ticks came twice": len(seen.repeated),
        "bytes of its memory are bad": seen.bad_bytes,
        "it booted again": len(seen.boot_ids) - 1,
        "bytes of its memory that it has not checked": max(REGION - checked, 0),
    }
    found = [f"{what}: {count}" for what, count in wrong.items() if count]
    if found:
        raise MultirootError(", ".join(found))
    return seen.seen


@asynccontextmanager
async def _failing(what: str, seconds: float) -> AsyncIterator[None]:
    """What fails in the body, or takes longer, is told of the canary, with what can be done about it."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise MultirootError(f"the canary {what} within {seconds:g} s", HINT) from error
    except OverdueError as error:
        longer = f"`multiroot update resume {more_downtime(error.limit_ms)}` lets VMs stand still for longer"
        raise MultirootError(f"the canary {what}: {error.message}", f"{longer}; {HINT}") from error
    except MultirootError as error:
        raise type(error)(f"the canary {what}: {error.message}", HINT) from error
