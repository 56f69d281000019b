# SPDX-License-Identifier: GPL-2.0-or-later
"""A collector beside a program that does something else: in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.racing import OvertakenError, unless
from multiroot.watch import loops
from multiroot.watch.collect import Collector
from multiroot.watch.events import Event
from multiroot.watch.facts import Facts
from multiroot.watch.view import View

T = TypeVar("T")
LOOK_S = 0.5  # so often it is looked whether the other thread is still there
Hear = Callable[[Event, View], None]


class InBackground:
    """Watches while the body runs; use as a context manager. What goes wrong in it is raised at its end."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Collector]], hear: Hear) -> None:
        """`make` makes the collector, in that thread; `hear` gets each event there, and what is known."""
        self._make = make
        self._hear = hear
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(loops.forgive)
        self._stop = asyncio.Event()
        self._begun = threading.Event()
        self._collector: Collector | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        if self._collector is None and self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # its loop is closed: it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def say(self, text: str) -> None:
        """Show a text to the audience."""

        async def put() -> None:
            self._known.say(text)

        self._do(put(), None)

    def wait(self, condition: Callable[[Facts], bool], timeout_s: float, what: str) -> Facts:
        """Until the facts are so; raises WaitTimeoutError that says `what` did not happen."""
        try:
            return self._do(self._known.wait(condition), timeout_s)
        except TimeoutError as error:
            raise WaitTimeoutError(f"{what} within {timeout_s:g} s") from error

    @property
    def _known(self) -> Collector:
        assert self._collector is not None
        return self._collector

    def _do(self, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        """In the other thread; raises what went wrong there if it has ended."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise self._error or MultirootError("nobody watches any more") from error
        until = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while True:
                left = LOOK_S if until is None else min(LOOK_S, max(until - time.monotonic(), 0))
                try:
                    return future.result(left)
                except TimeoutError:
                    if future.done() or (until is not None and time.monotonic() >= until):
                        raise
                    # A loop that has ended leaves what it was given last undone.
                    if not self._thread.is_alive():
                        raise self._error or MultirootError("nobody watches any more") from None
        finally:
            future.cancel()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that uses this
            self._error = error
        finally:
            self._begun.set()
            self._loop.close()

    async def _main(self) -> None:
        async with self._make() as self._collector:
            self._begun.set()
            with suppress(OvertakenError):
                await unless(self._listen(self._collector), self._stop.wait())

    async def _listen(self, collector: Collector) -> None:
        async for event in collector.events():
            self._hear(event, collector.view)
