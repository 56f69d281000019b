# SPDX-License-Identifier: GPL-2.0-or-later
"""Talking to one QEMU over QMP: a thin layer that speaks this project's errors and clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from qemu.qmp import EventListener, ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.message import Message

from multiroot.errors import CommandError
from multiroot.vm.vmm import VmmGoneError, VmmStuckError

log = logging.getLogger(__name__)

# The client logs every lost connection with a traceback; here they become VmmGoneError.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

# One that is stopped, or waits for a disk, may answer later or never. Far beyond what a busy root needs.
ANSWER_S = 30

_LOST = (ExecInterruptedError, QMPError, OSError, EOFError)


@dataclass(frozen=True)
class Event:
    """A QMP event; `at_ns` is when QEMU emitted it, on the machine-wide TSC clock."""

    name: str
    data: dict[str, Any]
    at_ns: int


class Events:
    """Events of some names since the watch began, in order."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(self, event: Event | None) -> None:
        """Take the event in if its name is watched; None says that no more will come."""
        if event is None or event.name in self._names:
            self._queue.put_nowait(event)

    async def next(self) -> Event:
        """The next event; waits for it. Raises VmmGoneError when none can come any more."""
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)
            raise VmmGoneError("QEMU went away")
        return event

    async def until(self, *statuses: str) -> Event:
        """The next event whose `status` is one of these; others are skipped."""
        while True:
            event = await self.next()
            if event.data.get("status") in statuses:
                return event


def wall_ns(timestamp: Any) -> int:
    """A message's `timestamp` as ns of this root's wall clock; raises VmmGoneError for what is none."""
    try:
        return int(timestamp["seconds"]) * 1_000_000_000 + int(timestamp["microseconds"]) * 1_000
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VmmGoneError("QEMU speaks no QMP", f"a time of its is {timestamp}") from error


def version_text(answer: Any) -> str:
    """The version in the answer to query-version; raises CommandError when there is none."""
    try:
        number = answer["qemu"]
        return f"{number['major']}.{number['minor']}.{number['micro']}{answer['package']}"
    except (KeyError, TypeError, IndexError) as error:
        raise CommandError("QEMU does not tell its version", f"it said {answer}") from error


class _Client(QMPClient):
    """The library's client, which can also leave what QEMU says where it is."""

    def leave_unread(self, unread: bool) -> None:
        """Nothing if there is no connection (any more)."""
        if self._writer is None or self._writer.is_closing():
            return
        # A socket's transport reads and writes; the library has only the writing side's type for it.
        transport = cast(asyncio.Transport, self._writer.transport)
        if unread:
            transport.pause_reading()
        else:
            transport.resume_reading()


class Qmp:
    """A connection; `to_ns` maps wall-clock ns of this root to the TSC clock, `hear` is told each event."""

    def __init__(
        self, name: str, to_ns: Callable[[int], int], hear: Callable[[Event], None] = lambda _: None
    ) -> None:
        self._name = name
        self._hear = hear
        self._client = _Client(name)
        self._to_ns = to_ns
        self._watches: set[Events] = set()
        # Used for its filter, which sees every event as it comes; it keeps none.
        self._client.register_listener(EventListener(event_filter=self._dispatch))
        self._guard: asyncio.Task[None] | None = None
        self._unwanted = asyncio.Event()
        self.version = ""
        self.shutdown_reason = ""  # of the last SHUTDOWN event: guest-shutdown, guest-reset, guest-panic, ...

    async def connect(self, path: Path) -> None:
        """Connect to the socket QEMU was given; returns once QEMU greeted.

        The socket listens from before QEMU starts, so this waits for QEMU without polling, as long as that
        takes. Raises VmmGoneError if QEMU ends before it greets.
        """
        try:
            await self._client.connect(str(path))
        except _LOST as error:
            raise VmmGoneError("QEMU did not come up") from error
        self._guard = asyncio.create_task(self._watch_connection())
        version = await self._execute("query-version", {})
        self.version = version_text(version)

    async def disconnect(self) -> None:
        """Close the connection; QEMU goes on."""
        self._unwanted.set()
        if self._guard is not None:
            await self._guard

    async def ended(self) -> None:
        """Wait until QEMU's end of the connection is closed and all it said has been taken in."""
        if self._guard is not None:
            await asyncio.wait({self._guard})

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command; `_` in argument names stands for `-`.

        Raises CommandError with QEMU's own words when it refuses, VmmGoneError when it went away,
        VmmStuckError when it does not answer.
        """
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        async with self.answers(command):
            return await self._execute(command, named)

    async def _execute(self, command: str, arguments: dict[str, Any]) -> Any:
        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise CommandError(f"QEMU refused {command}: {error}") from error
        except _LOST as error:
            raise VmmGoneError(f"QEMU went away during {command}") from error

    @asynccontextmanager
    async def answers(self, command: str) -> AsyncIterator[None]:
        """The body, which waits for QEMU; VmmStuckError when that takes too long."""
        try:
            async with asyncio.timeout(ANSWER_S):
                yield
        except TimeoutError as error:
            raise VmmStuckError(
                f"the QEMU of {self._name} does not answer {command}",
                f"its guest stays here; end it for good: `multiroot vm stop {self._name} --force`",
            ) from error

    async def human(self, line: str) -> str:
        """Run a line of the human monitor and return what it says; raises what `execute` raises."""
        return str(await self.execute("human-monitor-command", command_line=line))

    async def give_fd(self, name: str, fd: int) -> None:
        """Hand QEMU a duplicate of `fd`, to be called `name` in later commands."""
        try:
            self._client.send_fd_scm(fd)
        except _LOST as error:
            raise VmmGoneError("QEMU went away") from error
        await self.execute("getfd", fdname=name)

    @contextmanager
    def unread(self) -> Iterator[None]:
        """What QEMU says meanwhile is taken in only afterwards.

        While a guest stands still in a handoff nobody needs it, and taking it in would keep a CPU from what
        the guest waits for.
        """
        self._client.leave_unread(True)
        try:
            yield
        finally:
            self._client.leave_unread(False)

    def read_on(self) -> None:
        """Take in what QEMU says, also in the body of `unread`."""
        self._client.leave_unread(False)

    @contextmanager
    def watch(self, *names: str) -> Iterator[Events]:
        """Collect events of these names from now on, also while nobody waits for one."""
        events = self.start_watch(*names)
        try:
            yield events
        finally:
            self.stop_watch(events)

    def start_watch(self, *names: str) -> Events:
        """The same, until `stop_watch`."""
        events = Events(names)
        self._watches.add(events)
        return events

    def stop_watch(self, events: Events) -> None:
        self._watches.discard(events)

    def _dispatch(self, message: Message) -> bool:
        data: Any = message.get("data", {})
        try:
            at_ns = self._to_ns(wall_ns(message.get("timestamp")))
        except VmmGoneError as error:
            log.error("an event was passed over: %s", error)
            return False
        if not isinstance(data, dict):
            data = {}
        event = Event(str(message["event"]), data, at_ns)
        if event.name == "SHUTDOWN":
            self.shutdown_reason = str(data.get("reason", ""))
        self._hear(event)
        for watch in tuple(self._watches):
            watch.put(event)
        return False

    async def _watch_connection(self) -> None:
        """Close the connection in one place, be it lost or not wanted any more."""
        unwanted = asyncio.create_task(self._unwanted.wait())
        while self._client.runstate is Runstate.RUNNING and not unwanted.done():
            changed = asyncio.create_task(self._client.runstate_changed())
            await asyncio.wait({changed, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        unwanted.cancel()
        try:
            await self._client.disconnect()
        except _LOST:
            # It was lost already; how does not matter any more.
            return
        finally:
            for watch in tuple(self._watches):
                watch.put(None)
