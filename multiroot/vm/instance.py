# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM in one root: its QEMU, its console keeper, its place in the arena."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from multiroot import proc
from multiroot.arena.arena import Arena, Entry, OwnerWord
from multiroot.arena.layout import Owner
from multiroot.clocks import Clock, wall_clock
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.passthrough.devices import Devices
from multiroot.vm import console
from multiroot.vm.definition import VmDefinition
from multiroot.vm.folder import VmFolder, VmRecord
from multiroot.vm.process import AGENT_URGENCY, Process, set_urgent, started
from multiroot.vm.qemu.command import Descriptors, Paths, Qemu, command, guest_paths
from multiroot.vm.qemu.monitor import Monitor
from multiroot.vm.qemu.qmp import QemuGoneError, Qmp

GUESTS = Path("/usr/lib/multiroot/guests")

# ROMs are sent while the guest still runs, then QEMU stops it at once: what has not arrived by then arrives
# during the blackout. So let QEMU send them in small portions, one every 100 ms (the limit
# does not apply to device state), and not stop the guest before the last.
_BANDWIDTH = 640_000  # bytes/s
_DOWNTIME_LIMIT = 1  # ms
# A VM's own device may write anywhere at any time, so to QEMU all its memory, ROMs included, is dirty for
# ever: it must be content to send the ROMs (some 200 kB) once more while the guest stands still.
_BANDWIDTH_WITH_DEVICE = 1 << 30
_DOWNTIME_LIMIT_WITH_DEVICE = 2000

# Reasons of QMP's SHUTDOWN event that are not a guest's own wish to power off. QEMU runs with -no-reboot, so
# a reset, which is also what a triple fault looks like, ends it.
_GUEST_FAULTS = {"guest-reset": "the guest reset itself", "guest-panic": "the guest panicked"}


class VmState(StrEnum):
    """As in vm.proto; HANDED means that another root runs it and only its past is known here."""

    STARTING = "starting"
    RUNNING = "running"
    INCOMING = "incoming"
    FROZEN = "frozen"
    HANDED = "handed"
    STOPPED = "stopped"
    FAILED = "failed"


ACTIVE = (VmState.STARTING, VmState.RUNNING, VmState.INCOMING, VmState.FROZEN)


class Tap(Protocol):
    """An open tap, a port of the guests' bridge that is not up yet. It vanishes with its last descriptor."""

    @property
    def name(self) -> str: ...

    @property
    def fd(self) -> int: ...


class Network(Protocol):
    """Where a VM's network card is plugged in."""

    async def add_tap(self, vm: str) -> Tap: ...

    async def bring_up(self, tap: str) -> None: ...


@dataclass(frozen=True)
class Host:
    """What VMs of this root share. `clock` is the machine-wide one; `network` None gives VMs no card,
    `devices` None no device of their own.
    """

    root: int
    arena: Arena
    clock: Clock
    run_dir: Path
    network: Network | None = None
    devices: Devices | None = None
    qemu: Qemu = field(default_factory=Qemu)
    guests: Path = GUESTS

    def check(self, definition: VmDefinition) -> None:
        """Raises BadRequestError if this root lacks the guest image."""
        paths = guest_paths(self.arena.path, self.guests, definition.guest)
        if not (paths.kernel.is_file() and paths.initrd.is_file()):
            known = sorted(path.name for path in self.guests.glob("*")) if self.guests.is_dir() else []
            raise BadRequestError(
                f"no guest image {definition.guest!r} in {self.guests}",
                f"there are: {', '.join(known) or 'none'}",
            )
        if definition.device and self.devices is None:
            raise BadRequestError(f"{definition.name} owns a device, and this root has none to give")


class Instance:
    """A VM whose QEMU was started or adopted here."""

    def __init__(self, host: Host, definition: VmDefinition, entry: Entry) -> None:
        self.host = host
        self.definition = definition
        self.entry = entry
        self.owner = entry.owner
        self.word = OwnerWord(host.arena.memory, entry)
        self.state = VmState.STARTING
        self.error = ""
        self.folder = VmFolder(host.run_dir, definition.name)
        self.to_ns = wall_clock(host.clock)
        self.qmp = Qmp(definition.name, self.to_ns)
        self.monitor: Monitor | None = None  # while it waits for a device state
        self.process: Process | None = None
        self.tap = ""
        self.device = ""  # address in this root of the device it owns
        self._busy = ""
        self._watch: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Keep other operations off; raises ConflictError if one is under way."""
        if self._busy:
            raise ConflictError(f"{self.name} is just being {self._busy}")
        self._busy = doing
        try:
            yield
        finally:
            self._busy = ""

    async def start(self, *, giver: Owner | None = None) -> None:
        """Start QEMU and wait until it answers; with `giver` it awaits the device state of that owner's VM.

        Raises CommandError with QEMU's own words if it does not start; nothing is left then.
        """
        self.folder.make()
        try:
            await self._spawn(incoming=giver is not None)
            await self._connect()
            if self.monitor:
                await asyncio.to_thread(self.monitor.greet)
        except (QemuGoneError, CommandError) as error:
            words = self.folder.last_words() or str(error)
            await self.discard()
            raise CommandError(f"QEMU did not start {self.name}: {words}") from error
        self.folder.write(self._record(giver))
        self._watch = asyncio.create_task(self._watch_end())
        self.state = VmState.INCOMING if giver else VmState.RUNNING
        if self.tap and self.host.network and not giver:
            await self.host.network.bring_up(self.tap)

    async def adopt(self, record: VmRecord) -> None:
        """Take over an earlier agent's QEMU; raises ConflictError or QemuGoneError if it is gone."""
        self.process = Process(record.qemu)
        self.process.urgent(False)  # that agent may have ended in the middle of a handoff
        self.tap = record.tap
        await self.qmp.connect(self.folder.qmp)
        self._watch = asyncio.create_task(self._watch_end())

    def keep(self) -> None:
        """Note that this VM is no longer incoming but ours."""
        self.folder.write(self._record(None))

    def hurry(self, urgent: bool) -> None:
        """Before it stands still for a handoff: its QEMU and this agent first. After it: as usual."""
        if self.process:
            self.process.urgent(urgent)
        set_urgent(os.getpid(), AGENT_URGENCY if urgent else 0)

    async def resume(self) -> None:
        """Let the guest go on if it is stopped; only the owner may call this."""
        status = await self.qmp.execute("query-status")
        if not status["running"]:
            await self.qmp.execute("cont")
        self.state = VmState.RUNNING

    async def ended(self) -> None:
        """Wait until QEMU has ended by itself and `state` and `error` tell why."""
        if self._watch:
            await asyncio.wait({self._watch})

    async def end(self, state: VmState) -> None:
        """End QEMU for good; what the console saw is kept."""
        self.state = state
        if self.process:
            await self.process.kill()
        await self.qmp.disconnect()
        self.drop_monitor()

    async def fail(self) -> None:
        """End a QEMU that does not answer any more, if it has not ended already."""
        if self.process and self._watch:
            await self.process.kill()
            await self._watch

    def drop_monitor(self) -> None:
        """The device state has come, or will not; QEMU goes on without it."""
        if self.monitor:
            self.monitor.close()
            self.monitor = None

    async def discard(self) -> None:
        """End QEMU and forget all about the VM; the arena is not touched."""
        await self.end(VmState.STOPPED)
        self.folder.remove()

    def _record(self, giver: Owner | None) -> VmRecord:
        assert self.process is not None
        return VmRecord(self.definition, self.process.identity, self.qmp.version, self.tap, giver)

    async def _spawn(self, *, incoming: bool) -> None:
        host = self.host
        paths = guest_paths(host.arena.path, host.guests, self.definition.guest)
        with ExitStack() as stack:
            qmp = stack.enter_context(_listener(self.folder.qmp))
            serial, keeper_serial = (stack.enter_context(end) for end in socket.socketpair())
            tap = await host.network.add_tap(self.name) if host.network else None
            if tap:
                stack.callback(os.close, tap.fd)
                self.tap = tap.name
            self._spawn_keeper(stack, keeper_serial)
            monitor = self._add_monitor(stack) if incoming else None
            descriptors = Descriptors(qmp.fileno(), serial.fileno(), tap.fd if tap else None, monitor)
            argv = self._argv(paths, descriptors, incoming)
            self.process = started(proc.spawn(argv, log=self.folder.qemu_log, pass_fds=descriptors.all()))

    def _add_monitor(self, stack: ExitStack) -> int:
        """QEMU's end of a connection that needs no listening."""
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        self.monitor = Monitor(ours)
        return theirs.fileno()

    def _argv(self, paths: Paths, descriptors: Descriptors, incoming: bool) -> list[str]:
        return command(
            self.host.qemu,
            self.definition,
            self.entry.extent,
            paths,
            descriptors,
            incoming=incoming,
            device=self.device,
        )

    def _spawn_keeper(self, stack: ExitStack, serial: socket.socket) -> None:
        """It ends by itself when QEMU's end of the serial port closes."""
        listener = stack.enter_context(_listener(self.folder.console))
        argv: list[proc.Arg] = [
            sys.executable, "-I", "-S", console.__file__,
            str(serial.fileno()), str(listener.fileno()), self.folder.console_record,
        ]  # fmt: skip
        child = proc.spawn(argv, log=self.folder.console_log, pass_fds=(serial.fileno(), listener.fileno()))
        started(child)

    async def _connect(self) -> None:
        await self.qmp.connect(self.folder.qmp)
        await self.set_up_migration()

    async def set_up_migration(self) -> None:
        """Set now so that a handoff finds it set, on either side of it."""
        wanted = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
        await self.qmp.execute("migrate-set-capabilities", capabilities=wanted)
        own = bool(self.definition.device)
        await self.qmp.execute(
            "migrate-set-parameters",
            max_bandwidth=_BANDWIDTH_WITH_DEVICE if own else _BANDWIDTH,
            downtime_limit=_DOWNTIME_LIMIT_WITH_DEVICE if own else _DOWNTIME_LIMIT,
        )

    async def _watch_end(self) -> None:
        assert self.process is not None
        code = await self.process.wait()
        # What QEMU said last is still on its way.
        await self.qmp.ended()
        if not self.active:
            return
        reason = self.qmp.shutdown_reason
        if code:
            self.error = f"QEMU ended with {code}: {self.folder.last_words()}"
        elif reason in _GUEST_FAULTS:
            self.error = f"{_GUEST_FAULTS[reason]}; its last words: {self.folder.guest_words() or 'none'}"
        self.state = VmState.FAILED if self.error else VmState.STOPPED


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    return listener
