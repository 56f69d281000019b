# SPDX-License-Identifier: GPL-2.0-or-later
"""The new root's half of an update: when the old one has ended, everything becomes ours.

There is no journal: the ledger and the kernel say what is adopted already, and every step can be taken again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from multiroot import json_files
from multiroot.device.handle import Device
from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.launch import adopt, carve, retire
from multiroot.passthrough.functions import parse_address
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.storage.filesystems import Filesystem

log = logging.getLogger("multirootd")

_FIRST_ROOT = 1  # the ledger counts from there
PARK_S = 60.0  # the old root's kernel may take so long to end, drivers and all
POLL_S = 0.01  # CPUs park without a word; an interrupt from one that is gone can't be had


async def _no_way_out() -> bool:
    """This root has no uplink."""
    return False


class AdoptionState(StrEnum):
    """How far a root is with taking over."""

    NONE = "none"  # nobody told it to
    WAITING = "waiting for the old root"
    ADOPTING = "adopting CPUs and devices"
    ZEROING = "adopting memory"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class AdoptionContext:
    """What adoption works with.

    `ended` waits so many seconds for the parent's end and tells whether it came; `let_go` forgets the parent
    in this agent. `inherit_devices` takes over what roots that have ended leave in the IOMMU.
    `come_to_disks` mounts filesystems and serves the VMs' disks on them. `request` is the file that keeps
    what was asked for, outside of the agent, so that its successor goes on. `services` is the program that
    starts what the system runs beside the agent. `way_out` waits until guests get out of the machine by this
    root's uplink, and is False if they never do.
    `open_device` opens /dev/multiroot; `top` is the folder that has sys and proc.
    """

    phases: Phases
    ended: Callable[[float], Awaitable[bool]]
    let_go: Callable[[], Awaitable[None]]
    inherit_devices: Callable[[], None]
    come_to_disks: Callable[[Sequence[Filesystem]], object]
    request: Path
    services: Path
    way_out: Callable[[], Awaitable[bool]] = _no_way_out
    open_device: Callable[[], Device] = Device
    top: Path = Path("/")


class Adoption:
    """Takes over what the old root leaves, once asked to."""

    def __init__(self, context: AdoptionContext) -> None:
        self._context = context
        self._phases = context.phases
        self._task: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None
        self._verify = False
        self._functions: tuple[int, ...] = ()
        self._left: tuple[Filesystem, ...] = ()
        self.state = AdoptionState.NONE
        self.error = ""

    @property
    def _sys(self) -> Path:
        return self._context.top / "sys"

    @property
    def busy(self) -> bool:
        """True from the request until everything is taken over or an error ended it."""
        return self._task is not None and not self._task.done()

    def begin(
        self, *, verify: bool = False, devices: Sequence[str] = (), left: Sequence[Filesystem] = ()
    ) -> None:
        """Take over as soon as the old root has ended. Asked a second time it goes on with the first request.

        With `verify` all memory is summed up twice before it is used: a difference means that some device
        still writes there. `devices` are the addresses of the PCI functions to adopt; none means all.
        `left` are the filesystems that the old root has unmounted.
        Raises BadRequestError for what is no address, ConflictError in the machine's first root.
        """
        functions = _functions(devices)
        if self.busy:
            return
        with self._context.open_device() as device:
            if device.info().root == _FIRST_ROOT:
                raise ConflictError("this is the machine's first root: there was none to take over from")
        asked = {"verify": verify, "devices": list(devices), "left": [each.to_dict() for each in left]}
        json_files.write(self._context.request, asked)
        self._start(verify, functions, tuple(left))

    def resume(self) -> None:
        """After a restart of the agent. A request that is damaged is told of, for the agent must start."""
        try:
            asked = json_files.read(self._context.request, dict, _asked, "ask again: `multiroot root adopt`")
        except MultirootError as error:
            self._fail(error)
            return
        if asked is not None:
            self._start(*asked)

    def _start(self, verify: bool, functions: tuple[int, ...], left: tuple[Filesystem, ...]) -> None:
        self._verify = verify
        self._functions = functions
        self._left = left
        self.error = ""
        self.state = AdoptionState.WAITING
        self._task = asyncio.create_task(self._run())

    def _fail(self, error: MultirootError) -> None:
        self.state, self.error = AdoptionState.FAILED, str(error)
        log.error("taking over: %s", error)

    async def _run(self) -> None:
        try:
            await self._take_over()
        except MultirootError as error:
            self._fail(error)
        else:
            self.state = AdoptionState.DONE
            self._context.request.unlink(missing_ok=True)
            log.info("everything of the old root is adopted")

    async def _take_over(self) -> None:
        with self._context.open_device() as device:
            device.claim()
            with self._phases.phase(PhaseName.WAIT_FOR_OLD_ROOT):
                await self._wait_parked(device)
            self.state = AdoptionState.ADOPTING
            await self._adopt_cpus_and_devices(device)
            self.state = AdoptionState.ZEROING
            await self._adopt_memory(device)

    async def _wait_parked(self, device: Device) -> None:
        if not await self._context.ended(PARK_S):
            raise WaitTimeoutError(
                f"the old root did not end within {PARK_S:g} s",
                "see its console, then `multiroot root adopt`",
            )
        await self._context.let_go()
        until = time.monotonic() + PARK_S
        # For each CPU that does not park by itself the module waits, for seconds.
        while not await asyncio.to_thread(device.inherit):
            if time.monotonic() > until:
                raise ConflictError(
                    "a CPU of the old root did not park", "see the ledger: `multiroot root list`"
                )
            await asyncio.sleep(POLL_S)

    async def _adopt_cpus_and_devices(self, device: Device) -> None:
        """Guests wait for their disks and their way out, and for no CPU. So devices come first, CPUs while
        their drivers begin. Whichever fails, the other is done.
        """
        self._noting = asyncio.create_task(self._note_uplink())
        found = asyncio.Event()
        both = (self._adopt_devices(device, found), self._adopt_cpus(device, found))
        for result in await asyncio.gather(*both, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _adopt_cpus(self, device: Device, found: asyncio.Event) -> None:
        """Begins when devices are `found`."""
        await found.wait()
        for hardware_id in adopt.foreign_cpus(device):
            with self._phases.phase(PhaseName.ADOPT_CPU, hardware_id=hardware_id) as attributes:
                cpu = await asyncio.to_thread(adopt.adopt_cpu, device, hardware_id, self._sys)
                attributes["online_s"] = cpu.seconds

    async def _adopt_devices(self, device: Device, found: asyncio.Event) -> None:
        with self._phases.phase(PhaseName.ADOPT_DEVICES):
            try:
                await asyncio.to_thread(self._find_devices, device)
            finally:
                found.set()
            # Each waits for drivers of its own.
            services = asyncio.to_thread(retire.services, self._context.services, "adopted")
            await asyncio.gather(services, asyncio.to_thread(self._come_to_disks))

    def _find_devices(self, device: Device) -> None:
        self._context.inherit_devices()
        if self._functions:
            # In their order, for the kernel finds a device's others only behind its function 0.
            for function in self._functions:
                device.adopt_pci(function)
        else:
            device.adopt_pci()

    def _come_to_disks(self) -> None:
        """The rest goes on without a disk that is not found: it can be mounted by hand."""
        if not self._left:
            return
        try:
            with self._phases.phase(PhaseName.COME_TO_DISKS):
                self._context.come_to_disks(self._left)
        except MultirootError as error:
            log.error("the VMs' disks: %s", error)
            return
        self._note_away(PhaseName.DISKS_AWAY, PhaseName.STOP_DISKS)

    async def _note_uplink(self) -> None:
        """Nothing waits for it: its card may be one that is not adopted."""
        if await self._context.way_out():
            self._note_away(PhaseName.UPLINK_AWAY, PhaseName.UNBIND_DRIVERS)

    def _note_away(self, what: PhaseName, since_when: PhaseName) -> None:
        """Something of the guests is there again that was away since the old root began that phase."""
        if left := [each for each in self._phases.finished if each.name == since_when]:
            since = left[-1].start_ns
            self._phases.add(Phase(what, self._phases.side, since, self._phases.clock() - since))

    async def _adopt_memory(self, device: Device) -> None:
        loop = asyncio.get_running_loop()

        def wait(seconds: float) -> None:
            # Called in the thread that zeroes; ends with the agent.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(seconds), loop).result()

        pieces = await asyncio.to_thread(adopt.foreign_memory, device, self._context.top)
        if self._verify:
            with self._phases.phase(PhaseName.VERIFY_MEMORY, bytes=sum(piece.size for piece in pieces)):
                await asyncio.to_thread(adopt.verify_quiet, device, pieces)
        for piece in pieces:
            with self._phases.phase(PhaseName.ZERO_MEMORY, bytes=piece.size):
                await asyncio.to_thread(adopt.zero, device, piece, wait)
            with self._phases.phase(PhaseName.ADD_MEMORY, bytes=piece.size):
                await asyncio.to_thread(adopt.add_memory, device, piece, self._sys)
        await asyncio.to_thread(carve.online_blocks, adopt.offline_pieces(self._sys), self._sys)


def _functions(devices: Sequence[str]) -> tuple[int, ...]:
    """Requester ids of PCI functions by their addresses; raises BadRequestError for what is no address."""
    return tuple(sorted(parse_address(device) for device in devices))


def _asked(data: dict[str, Any]) -> tuple[bool, tuple[int, ...], tuple[Filesystem, ...]]:
    """What `begin` has written: functions, filesystems. Raises the usual errors for other things."""
    verify, devices, left = data["verify"], data["devices"], data["left"]
    if not isinstance(verify, bool) or not isinstance(devices, list) or not isinstance(left, list):
        raise TypeError("it is no request to take over")
    found = tuple(Filesystem.from_dict(each) for each in left)
    return verify, _functions([str(device) for device in devices]), found
