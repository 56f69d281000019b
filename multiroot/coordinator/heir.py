# SPDX-License-Identifier: GPL-2.0-or-later
"""The new root's half of an update: when the old one has ended, everything becomes ours.

There is no journal: the ledger and the kernel say what is adopted already, and every step can be taken again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path

from multiroot.device.handle import Device
from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.launch import adopt, carve, retire
from multiroot.passthrough.functions import parse_address
from multiroot.phases import Phases

log = logging.getLogger("multirootd")

PARK_S = 60.0  # the old root's kernel may take so long to end, drivers and all
POLL_S = 0.01  # CPUs park without a word; an interrupt from one that is gone can't be had
ZERO_RATE = 512 << 20  # bytes/s at most: VMs run beside it


class Heirdom(StrEnum):
    """How far a root is with taking over."""

    NONE = "none"  # nobody told it to
    WAITING = "waiting for the old root"
    ADOPTING = "adopting CPUs and devices"
    ZEROING = "adopting memory"
    DONE = "done"
    FAILED = "failed"


class Heir:
    """Takes over once told to. `ended` waits for the parent's end, `let_go` forgets it in this agent."""

    def __init__(
        self,
        phases: Phases,
        ended: Callable[[float], Awaitable[bool]],
        let_go: Callable[[], Awaitable[None]],
        told: Path,
        services: Path,
    ) -> None:
        self._phases = phases
        self._ended = ended
        self._let_go = let_go
        self._told = told
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._verify = False
        self._functions: tuple[int, ...] = ()
        self.state = Heirdom.NONE
        self.error = ""

    @property
    def busy(self) -> bool:
        """True while something is being taken over, or is to be."""
        return self._task is not None and not self._task.done()

    def begin(self, *, verify: bool = False, devices: Sequence[str] = ()) -> None:
        """Take over as soon as the old root has ended; asked twice it goes on with what it does.

        With `verify` all memory is summed up twice before its use: a difference is DMA that nobody stopped.
        Of the PCI functions only `devices` are adopted, by their addresses; all when there are none.
        BadRequestError for what is no address.
        """
        functions = tuple(sorted(parse_address(device) for device in devices))
        if self.busy:
            return
        self._verify = verify
        self._functions = functions
        # Kept outside of the agent: its successor goes on.
        self._told.write_text(json.dumps({"verify": verify, "devices": list(devices)}))
        self.error = ""
        self.state = Heirdom.WAITING
        self._task = asyncio.create_task(self._run())

    def resume(self) -> None:
        """After a restart of the agent."""
        if self._told.exists():
            self.begin(**json.loads(self._told.read_text()))

    async def _run(self) -> None:
        try:
            await self._take_over()
        except MultirootError as error:
            self.state, self.error = Heirdom.FAILED, str(error)
            log.error("taking over: %s", error)
        else:
            self.state = Heirdom.DONE
            self._told.unlink(missing_ok=True)
            log.info("everything of the old root is adopted")

    async def _take_over(self) -> None:
        with Device() as device:
            device.claim()
            with self._phases.phase("wait for the old root"):
                await self._wait_parked(device)
            self.state = Heirdom.ADOPTING
            await self._adopt_cpus(device)
            with self._phases.phase("adopt devices"):
                await asyncio.to_thread(self._adopt_devices, device)
            self.state = Heirdom.ZEROING
            await self._adopt_memory(device)

    async def _wait_parked(self, device: Device) -> None:
        if not await self._ended(PARK_S):
            raise WaitTimeoutError(
                f"the old root did not end within {PARK_S:g} s",
                "see its console, then `multiroot root adopt`",
            )
        await self._let_go()
        until = time.monotonic() + PARK_S
        while not device.inherit():
            if time.monotonic() > until:
                raise ConflictError(
                    "a CPU of the old root did not park", "see the ledger: `multiroot root list`"
                )
            await asyncio.sleep(POLL_S)

    async def _adopt_cpus(self, device: Device) -> None:
        for apic_id in adopt.foreign_cpus(device):
            with self._phases.phase("adopt CPU", apic_id=apic_id) as attributes:
                cpu = await asyncio.to_thread(adopt.adopt_cpu, device, apic_id)
                attributes["online_s"] = cpu.seconds

    def _adopt_devices(self, device: Device) -> None:
        if self._functions:
            # In their order, for the kernel finds a device's others only behind its function 0.
            for function in self._functions:
                device.adopt_pci(function)
        else:
            device.adopt_pci()
        retire.services(self._services, "adopted")

    async def _adopt_memory(self, device: Device) -> None:
        loop = asyncio.get_running_loop()

        def pace(size: int) -> None:
            # In the thread that zeroes: half of what the rate leaves is time for everything else on this CPU.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(size / ZERO_RATE), loop).result()

        pieces = await asyncio.to_thread(adopt.foreign_memory, device)
        if self._verify:
            with self._phases.phase("verify memory", bytes=sum(piece.size for piece in pieces)):
                await asyncio.to_thread(adopt.verify_quiet, device, pieces)
        for piece in pieces:
            with self._phases.phase("zero memory", bytes=piece.size):
                await asyncio.to_thread(adopt.zero, device, piece, pace)
            with self._phases.phase("add memory", bytes=piece.size):
                await asyncio.to_thread(adopt.add_memory, device, piece)
        await asyncio.to_thread(carve.online_blocks, adopt.offline_pieces())
