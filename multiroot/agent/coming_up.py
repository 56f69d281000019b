# SPDX-License-Identifier: GPL-2.0-or-later
"""Says where an agent stands that takes long to come up, as a message of its kernel.

A root that is being started is ended when its agent does not answer in time, and all that the agent has
written goes with it. Its kernel's messages alone are heard (coordinator/join.py).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

AT = "multiroot: the agent stands at "  # what such a message begins with
# Much longer than an emulated computer needs on a busy host; then after as long again, and so on.
FIRST_S = 60.0
FRAMES_MOST = 10
# The kernel cuts what is written to /dev/kmsg at once (printk.c, PRINTKRB_RECORD_MAX), and takes ten messages
# in five seconds (devkmsg's rate limit).
MESSAGE_MOST = 800
MESSAGES_MOST = 8
KMSG = Path("/dev/kmsg")


class ComingUp:
    """Watches from `begin` until `done`, in a thread of its own: the event loop may be what stands."""

    def __init__(self, kmsg: Path = KMSG, first_s: float = FIRST_S) -> None:
        self._kmsg = kmsg
        self._first_s = first_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="coming up", daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None  # whose tasks are told, too

    def begin(self) -> ComingUp:
        """From now on."""
        self._thread.start()
        return self

    def done(self) -> None:
        """It has come up, or says itself why it does not."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        wait = self._first_s
        while not self._done.wait(wait):
            wait = time.monotonic() - began
            self._tell(wait)

    def _tell(self, after_s: float) -> None:
        places = [*of_threads(), *of_tasks(self.loop)]
        if len(places) > MESSAGES_MOST:
            places[MESSAGES_MOST - 1 :] = [f"{len(places) - MESSAGES_MOST + 1} more"]
        for place in places:
            say(f"{AT}{place}"[:MESSAGE_MOST] + f" after {after_s:.0f} s", self._kmsg)


def say(text: str, kmsg: Path = KMSG) -> None:
    """As a message of the kernel, which gets to the console of one that was told to be quiet, too."""
    try:
        kmsg.write_text(f"<3>{text}\n")
    except OSError as error:
        sys.stderr.write(f"cannot write to {kmsg}: {error}\n")


def of_threads() -> list[str]:
    """Where all threads but this one are, innermost first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"{names.get(ident, 'a thread')}: {_places(list(_callers(frame)))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    ]


def of_tasks(loop: asyncio.AbstractEventLoop | None) -> list[str]:
    """What the tasks of a loop wait for, innermost first; nothing without a loop."""
    if loop is None:
        return []
    import asyncio

    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:
        return ["tasks that change too fast to be told"]
    return [f"{task.get_name()}: {_places(list(_awaited(task.get_coro()))[::-1])}" for task in tasks]


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _awaited(waiting: Any) -> Iterator[FrameType]:
    """Frames of a coroutine and of what it waits for, outermost first. A task tells the first alone."""
    for frame, inner in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
        if found := getattr(waiting, frame, None):
            yield found
            yield from _awaited(getattr(waiting, inner))


def _places(frames: Sequence[FrameType]) -> str:
    told = [
        f"{frame.f_code.co_name} ({frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno})"
        for frame in frames[:FRAMES_MOST]
    ]
    return " < ".join(told) or "nowhere"
