# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that outlive the agent that started them: VMMs and console keepers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multiroot.errors import ConflictError
from multiroot.processes import ProcessId, open_pidfd, read_process

# A sched(7) priority, of VMMs and of agents: an agent must be able to stop what it let run, so it gets turns.
# No more than that, but for the thread that lets the guest go on: one that wakes up takes its CPU from
# whoever has a lower priority, even where another has nothing to do. For one with the same priority the
# kernel looks for another.
URGENCY = 1
FIRST = URGENCY + 1


def set_urgent(pid: int, urgency: int, first: Collection[int] = ()) -> None:
    """Give all threads of a process a real-time priority, or with 0 the usual policy again. Threads that are
    among `first` get FIRST in place of any other.

    While a guest stands still, what it waits for must not wait for other guests' turns on the CPU: no nice
    value makes those give it up in the middle of their turn, a real-time policy does. Without the right to
    set that, or when the process has ended, nothing happens.
    """
    # Any of its threads, too, may end meanwhile. No glob: a guest is about to stand still for this.
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            _set_thread(int(task), FIRST if urgency and int(task) in first else urgency)


def _set_thread(task: int, urgency: int) -> None:
    policy = os.SCHED_RR if urgency else os.SCHED_OTHER
    with suppress(ProcessLookupError, PermissionError):
        os.sched_setscheduler(task, policy, os.sched_param(urgency))


class Urgency:
    """Makes this process urgent as long as anybody needs it to be, in whatever thread they ask.

    Also knows VMMs that are urgent for a while longer than this process: they give way to who needs it.
    """

    def __init__(self) -> None:
        self._needed_by: set[str] = set()
        self._eased: dict[str, Callable[[], None]] = {}
        self._first: set[int] = set()
        self._asking = threading.Lock()

    @property
    def needed(self) -> bool:
        """Whether it is urgent now."""
        return bool(self._needed_by)

    def need(self, who: str, needed: bool) -> None:
        """`who` needs it from now on, or not any more; the second time nothing happens."""
        with self._asking:
            self._eased.pop(who, None)
            self._need(who, needed)
            while needed and self._eased:
                _, give_way = self._eased.popitem()
                give_way()

    def ease(self, who: str, give_way: Callable[[], None]) -> None:
        """`who` needs it no more. Its VMM stays urgent until `calm`, or until others need this process, as
        they may now: `give_way` is called then.
        """
        with self._asking:
            self._need(who, needed=False)
            if self._needed_by:
                give_way()
            else:
                self._eased[who] = give_way

    def calm(self, who: str) -> None:
        """The VMM gives way, unless it has, or is needed once more."""
        with self._asking:
            if give_way := self._eased.pop(who, None):
                give_way()

    def _need(self, who: str, needed: bool) -> None:
        before = bool(self._needed_by)
        if needed:
            self._needed_by.add(who)
        else:
            self._needed_by.discard(who)
        if bool(self._needed_by) != before:
            set_urgent(os.getpid(), URGENCY if needed else 0, self._first)

    @contextmanager
    def first(self) -> Iterator[None]:
        """In the body, this thread comes before VMMs while a guest stands still."""
        task = threading.get_native_id()
        with self._asking:
            self._first.add(task)
            if self._needed_by:
                _set_thread(task, FIRST)
        try:
            yield
        finally:
            with self._asking:
                self._first.discard(task)
                _set_thread(task, URGENCY if self._needed_by else 0)


class Process:
    """A running process, a child of ours or one adopted from an earlier agent."""

    def __init__(self, identity: ProcessId, child: subprocess.Popen[bytes] | None = None) -> None:
        """Raises ConflictError if it does not run any more."""
        self.identity = identity
        self._child = child
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._pidfd = open_pidfd(identity.pid)
        except ProcessLookupError as error:
            raise ConflictError(f"process {identity.pid} has ended") from error
        if child is None and not identity.alive():
            os.close(self._pidfd)
            raise ConflictError(f"process {identity.pid} has ended")
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def urgent(self, urgency: int) -> None:
        """See `set_urgent`."""
        set_urgent(self.pid, urgency)

    async def wait(self) -> int | None:
        """Wait for its end; its exit code (negative: signal), None for an adopted process."""
        code: int | None = await asyncio.shield(self._ended)
        return code

    async def kill(self) -> None:
        """End it at once and wait until it is gone: after this it touches no memory any more."""
        if self.running:
            # One that is not our child may be gone before we have heard of it.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self.wait()

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(self._child.wait() if self._child else None)


def started(child: subprocess.Popen[bytes]) -> Process:
    """A child that was just started; raises ConflictError if it has ended already.

    Its policy is set to the usual one: an agent in the middle of another VM's handoff would pass on its own.
    """
    identity = read_process(child.pid) or ProcessId(child.pid, 0)
    process = Process(identity, child)
    process.urgent(0)
    return process


def listen(path: Path) -> socket.socket:
    """A Unix socket to be inherited. It listens before that process starts: connecting is never retried."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    return listener
