# SPDX-License-Identifier: GPL-2.0-or-later
"""A VMM without a process: its guest is a flag that says whether it runs, its device state a few bytes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.errors import CommandError
from multiroot.processes import ProcessId
from multiroot.vm.definition import VmDefinition
from multiroot.vm.vmm import End, Resumed, Saved, Vmm, VmmSetup, Wiring

STATE = b"all that a VMM knows" * 10_000  # several frames


class MemoryVmm:
    """See multiroot/vm/vmm.py."""

    version = "1"
    process = ProcessId(0, 0)
    refusing: tuple[str, ...] = ()
    is_ending = False

    def __init__(self, factory: MemoryVmms, setup: VmmSetup) -> None:
        self.name = factory.name
        self.calls: list[str] = []
        self.running = False
        self.hinted = b""
        self.received = b""
        self.fate = ""  # why it ended, if not because it was told to
        self._factory = factory
        self._socket: socket.socket | None = None
        self._ended = asyncio.Event()
        self._stopped_ns = 0
        self._loaded_ns = 0

    async def start(self, wiring: Wiring, *, incoming: bool = False) -> None:
        assert os.fstat(wiring.serial)
        self.running = not incoming

    async def adopt(self, process: ProcessId) -> None:
        raise AssertionError("there is no process to adopt")

    def urgent(self, urgent: bool) -> None:
        self.calls.append(f"urgent {urgent}")

    async def resume(self) -> None:
        self.running = True

    async def pause(self) -> None:
        self.running = False

    async def press_power(self) -> None:
        self.calls.append("press power")

    async def reset(self) -> None:
        self.calls.append("reset")

    async def announce(self) -> None:
        self.calls.append("announce")

    @contextmanager
    def unread(self) -> Iterator[None]:
        self.calls.append("unread")
        yield
        self.calls.append("read")

    async def wait_end(self) -> End:
        await self._ended.wait()
        return End(self.fate)

    async def end(self) -> None:
        self.running = False
        if self._socket:
            self._socket.close()
        self._ended.set()

    async def hints(self) -> bytes:
        return b"hints"

    async def connect(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))

    async def send(self) -> None:
        assert self._socket
        self.calls.append("send")
        self.running = False
        self._stopped_ns = time.monotonic_ns()
        self._socket.sendall(self._factory.state)
        self._socket.close()

    async def stopped(self) -> int:
        return self._stopped_ns

    async def saved(self) -> Saved:
        return Saved(self._stopped_ns, time.monotonic_ns(), len(self._factory.state), 0)

    async def so_far(self) -> Saved:
        return Saved(self._stopped_ns, 0, 0, 0)

    async def cancel(self) -> str:
        self.calls.append("cancel")
        return ""

    async def take_hints(self, hints: bytes) -> None:
        self.hinted = hints

    async def receive(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))

    def take(self, switch: Switch, until: Step) -> Outcome:
        assert self._socket
        if switch.step is Step.BEGUN:
            while data := self._socket.recv(10_000):
                self.received += data
            if self.received != STATE:
                raise CommandError("this is no state of mine")
            self._loaded_ns = time.monotonic_ns()
            switch.hear()
        return switch.run(min(until, Step.TAKEN))

    def resume_loaded(self) -> Resumed:
        self.running = True
        return Resumed(self._loaded_ns, time.monotonic_ns())

    def stay_loaded(self) -> Resumed:
        return Resumed(self._loaded_ns, self._loaded_ns)


@dataclass
class MemoryVmms:
    """Makes them, and remembers those it made; `state` is what they send."""

    name: str = "memory"
    state: bytes = STATE
    made: list[MemoryVmm] = field(default_factory=list)

    def __call__(self, setup: VmmSetup) -> Vmm:
        self.made.append(MemoryVmm(self, setup))
        return self.made[-1]

    async def check(self, definition: VmDefinition) -> None:
        pass

    async def written_out(self, cpu: str) -> str:
        return cpu

    async def given(self, cpu: str) -> str:
        return ""
