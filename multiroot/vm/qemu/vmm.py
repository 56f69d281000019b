# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU as a VMM: its process, its QMP connections, its migration."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from multiroot import proc
from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.errors import CommandError, ConflictError
from multiroot.processes import ProcessId
from multiroot.vm.cpu_model import FROZEN, HOST, follows_the_root, is_written_out
from multiroot.vm.definition import DIRECT, MACHINES, OVMF, VmDefinition
from multiroot.vm.folder import last_words, log_text
from multiroot.vm.notices import Notice
from multiroot.vm.oom import why_killed
from multiroot.vm.process import URGENCY, Process, listen, started
from multiroot.vm.qemu import cpu as cpus
from multiroot.vm.qemu import memory_map, notices, own_trace
from multiroot.vm.qemu.command import Descriptors, Incoming, Qemu, command
from multiroot.vm.qemu.monitor import Monitor
from multiroot.vm.qemu.own_trace import OwnTrace
from multiroot.vm.qemu.probe import check_machine
from multiroot.vm.qemu.qmp import Event, Events, Qmp, wall_ns
from multiroot.vm.qemu.refusals import Refusals
from multiroot.vm.vmm import End, Resumed, Saved, VmmGoneError, VmmSetup, VmmStuckError, Wiring

NAME = "qemu"

# ROMs are sent while the guest still runs, then QEMU stops it at once: what has not arrived by then arrives
# during the blackout. So let QEMU send them in small portions, one every 100 ms (the limit
# does not apply to device state), and not stop the guest before the last.
_BANDWIDTH = 640_000  # bytes/s
# UEFI has some 4.2 MB of them. Six portions, the last of which is small. Without a BIOS it is 50 kB. Two
# portions: when QEMU begins to send, it keeps the guest from its devices for some 20 ms, and a guest that is
# stopped right after that stands still for both times in a row.
_BANDWIDTH_OF = {OVMF: 6_900_000, DIRECT: 400_000}
_DOWNTIME_LIMIT = 1  # ms
# A VM's own device may write anywhere at any time, so to QEMU all its memory, ROMs included, is dirty for
# ever: it must be content to send the ROMs (some 200 kB) once more while the guest stands still.
_BANDWIDTH_WITH_DEVICE = 1 << 30
_DOWNTIME_LIMIT_WITH_DEVICE = 2000
# Kernels before 6.2 do not say how little state a device has. QEMU takes it for 100 GiB, and is to believe
# that they arrive within the limit.
_SWITCHOVER_WITH_DEVICE = 1 << 50

_FD_NAME = "handoff"  # what QEMU calls its end of the connection
_URI = f"fd:{_FD_NAME}"
# Statuses of query-migrate in which QEMU is at work on it.
_UNDER_WAY = ("setup", "active", "device", "cancelling", "wait-unplug")
# Reasons of QMP's SHUTDOWN event that are not a guest's own wish to power off.
_GUEST_FAULTS = {"guest-panic": "the guest panicked"}


class QemuVmm:
    """A Vmm (multiroot/vm/vmm.py says what each method does)."""

    incoming = Incoming()
    alone = True  # nobody else stops the guest

    def __init__(self, qemu: Qemu, setup: VmmSetup) -> None:
        self.setup = setup
        self.qmp = Qmp(setup.definition.name, setup.to_ns, self._hear)
        self.trace = OwnTrace(self.qmp, setup.definition.name)
        self._qemu = qemu
        self._socket = setup.folder / "qmp.sock"
        self.running: Process | None = None
        self._monitor: Monitor | None = None  # while it waits for a device state
        self._sending: Events | None = None  # since `send`
        self._stops: Events | None = None  # the same, for `stopped`
        self._stop: asyncio.Task[Event] | None = None
        self._ending = False
        self._paused = False  # and not by a handoff
        self._fault = ""  # why the guest can never go on
        self._looking: asyncio.Task[None] | None = None  # why it stands still
        self._refusals = Refusals(self.qmp, setup)
        self._stopped_ns = 0
        self._loaded_wall_ns = 0

    @property
    def name(self) -> str:
        return NAME

    @property
    def version(self) -> str:
        return self.qmp.version

    @property
    def process(self) -> ProcessId | None:
        return self.running.identity if self.running else None

    @property
    def is_ending(self) -> bool:
        return bool(self.qmp.shutdown_reason)

    @property
    def refusing(self) -> tuple[str, ...]:
        return self._refusals.disks

    async def start(self, wiring: Wiring, *, incoming: bool = False) -> None:
        self.spawn(wiring, incoming=incoming)
        try:
            await self.connect_qmp()
        except VmmGoneError as error:
            name, said = self.setup.definition.name, log_text(self.setup.log)
            if lacks := cpus.lacking(said):
                raise cpus.refused(name, lacks) from error
            if refused := cpus.tsc_refused(name, said):
                raise refused from error
            raise
        await self.set_up_migration()
        if incoming:
            await self.trace.begin(own_trace.LOAD)
        if self._monitor:
            await asyncio.to_thread(self._monitor.greet)

    def spawn(self, wiring: Wiring, *, incoming: bool) -> None:
        """Start the process; whether it comes up is not waited for."""
        with ExitStack() as stack:
            qmp = stack.enter_context(listen(self._socket))
            monitor = self._add_monitor(stack) if incoming else None
            descriptors = Descriptors(qmp.fileno(), wiring.serial, wiring.cards, monitor)
            argv = command(
                self._qemu,
                self.setup,
                descriptors,
                functions=wiring.functions,
                disks=wiring.disks,
                logins=wiring.logins,
                seed=wiring.seed,
                incoming=self.incoming if incoming else None,
            )
            with wiring.inside():
                child = proc.spawn(argv, log=self.setup.log, pass_fds=descriptors.all())
            self.running = started(child)

    def _add_monitor(self, stack: ExitStack) -> int:
        """QEMU's end of a connection that needs no listening."""
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        self._monitor = Monitor(ours)
        return theirs.fileno()

    async def connect_qmp(self) -> None:
        """Wait until QEMU answers."""
        await self.qmp.connect(self._socket)

    async def set_up_migration(self) -> None:
        """Set what a handoff is to find set on either side of it: RAM stays, ROMs go in small portions."""
        wanted = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
        await self.qmp.execute("migrate-set-capabilities", capabilities=wanted)
        own, firmware = bool(self.setup.definition.functions), self.setup.definition.firmware
        await self.qmp.execute(
            "migrate-set-parameters",
            max_bandwidth=_BANDWIDTH_WITH_DEVICE if own else _BANDWIDTH_OF.get(firmware, _BANDWIDTH),
            downtime_limit=_DOWNTIME_LIMIT_WITH_DEVICE if own else _DOWNTIME_LIMIT,
            **({"avail_switchover_bandwidth": _SWITCHOVER_WITH_DEVICE} if own else {}),
        )

    async def adopt(self, process: ProcessId) -> None:
        self.running = Process(process)
        await self.connect_qmp()

    def urgent(self, urgent: bool) -> None:
        if self.running:
            self.running.urgent(URGENCY if urgent else 0)

    async def resume(self) -> None:
        self._paused = False
        status = await self.qmp.execute("query-status")
        if status.get("status") in notices.FATAL:
            await self._give_up(status["status"])
        elif not status["running"]:
            await self.qmp.execute("cont")
        if self.refusing:
            self._looking = asyncio.create_task(self._look())

    async def pause(self) -> None:
        if (await self.qmp.execute("query-status"))["running"]:
            await self.qmp.execute("stop")
        self._paused = True

    async def press_power(self) -> None:
        kind, *words = self.setup.definition.machine.split(",")
        if "acpi=off" in words:
            name = self.setup.definition.name
            raise ConflictError(
                f"{name} has no power button, it is a {kind} without ACPI",
                f"power it off: multiroot vm stop {name} --force",
            )
        await self.qmp.execute("system_powerdown")

    async def reset(self) -> None:
        await self.qmp.execute("system_reset")

    def _hear(self, event: Event) -> None:
        if event.name == "STOP" and self.alone and not self._sending:
            # Nobody here has asked for it.
            self._looking = asyncio.create_task(self._look())
        again = event.name == "BLOCK_IO_ERROR" and self._refusals.hear(event.data)
        if not again and (what := notices.told(event.name, event.data)):
            self.setup.heard(Notice(event.at_ns, what))

    async def _look(self) -> None:
        """Nobody waits for what this raises: a QEMU that is gone or stuck is noticed elsewhere."""
        with suppress(VmmGoneError, VmmStuckError, CommandError):
            status = str((await self.qmp.execute("query-status")).get("status"))
            if status in notices.FATAL:
                await self._give_up(status)
            elif self.refusing:
                await self._refusals.try_again(lambda: not (self._sending or self._paused or self._ending))

    async def _give_up(self, status: str) -> None:
        """End QEMU, whose guest can't go on; why is told as if it had ended by itself."""
        self._fault = notices.FATAL[status]
        if self.running:
            await self.running.kill()

    async def announce(self) -> None:
        await self.qmp.execute("announce-self", initial=50, max=550, rounds=5, step=100)

    def unread(self) -> AbstractContextManager[None]:
        return self.qmp.unread()

    async def wait_end(self) -> End:
        assert self.running is not None
        code = await self.running.wait()
        # What QEMU said last is still on its way.
        await self.qmp.ended()
        if self._fault:
            return End(fault=self._fault)
        # One that was just ended may have been dead already, of something else.
        ended = self._ending and code in (None, -signal.SIGKILL)
        if ended or code == 0 or (code is None and self.qmp.shutdown_reason):
            fault = _GUEST_FAULTS.get(self.qmp.shutdown_reason, "")
            return End(fault=fault, powered_off=not (ended or fault))
        how = "QEMU has ended in an unknown way, for an earlier agent started it"
        if code is not None:
            how = f"QEMU {proc.how_ended(code)}"
        if code in (None, -signal.SIGKILL):
            how += f"; {await asyncio.to_thread(why_killed, self.running.identity)}"
        words = self._last_words()
        return End(error=f"{how}; its last words: {words}" if words else how)

    async def end(self) -> None:
        self._ending = True
        if self.running:
            await self.running.kill()
        await self.qmp.disconnect()
        self.drop_monitor()

    def drop_monitor(self) -> None:
        """Close the second connection; QEMU goes on without it."""
        if self._monitor:
            self._monitor.close()
            self._monitor = None

    async def hints(self) -> bytes:
        """The guest's memory map."""
        definition = self.setup.definition
        return memory_map.pack(await memory_map.read(self.qmp, definition.machine, len(definition.cards)))

    async def connect(self, fd: int) -> None:
        await self.qmp.give_fd(_FD_NAME, fd)

    async def send(self) -> None:
        self._drop_sending()
        await self.trace.begin(own_trace.SAVE)
        # Of a guest that is paused nobody says that it stops.
        self._stopped_ns = self.setup.to_ns(time.time_ns()) if self._paused else 0
        self._sending = self.qmp.start_watch("STOP", "MIGRATION")
        self._stops = self.qmp.start_watch("STOP")
        # One waits for it, for all who ask.
        self._stop = asyncio.create_task(self._stops.next())
        self._stop.add_done_callback(lambda stop: stop.cancelled() or stop.exception())
        await self.qmp.execute("migrate", uri=_URI)

    async def stopped(self) -> int:
        if self._paused:
            return self._stopped_ns
        assert self._stop
        self.qmp.read_on()
        return (await asyncio.shield(self._stop)).at_ns

    async def saved(self) -> Saved:
        async with self.qmp.answers("migrate"):
            if not self._stopped_ns:
                self._stopped_ns = (await self._until(lambda event: event.name == "STOP")).at_ns
            saved = await self._until(lambda event: event.data.get("status") == "completed")
        self._drop_sending()
        ram = statistics(await self.qmp.execute("query-migrate"))
        copied = ram_copied(ram, self.setup.definition.ram_bytes)
        return Saved(self._stopped_ns, saved.at_ns, ram["transferred"], copied)

    async def _until(self, wanted: Callable[[Event], bool]) -> Event:
        assert self._sending
        while not wanted(event := await self._sending.next()):
            if event.data.get("status") == "failed":
                raise CommandError("QEMU could not write the device state", self._last_words())
        return event

    def _drop_sending(self) -> None:
        for watch in (self._sending, self._stops):
            if watch:
                self.qmp.stop_watch(watch)
        self._sending = self._stops = None
        if self._stop:
            self._stop.cancel()
            self._stop = None

    async def so_far(self) -> Saved:
        try:
            status = await self.qmp.execute("query-migrate")
        except (VmmGoneError, VmmStuckError):
            status = {}
        return Saved(self._stopped_ns, 0, int(status.get("ram", {}).get("transferred", 0)), 0)

    async def cancel(self) -> str:
        self._drop_sending()
        with self.qmp.watch("MIGRATION") as events:
            status = await self.qmp.execute("query-migrate")
            if status.get("status") in _UNDER_WAY:
                await self.qmp.execute("migrate_cancel")
                async with self.qmp.answers("migrate_cancel"):
                    await events.until("cancelled", "completed", "failed")
        return str(status.get("error-desc", ""))

    async def take_hints(self, hints: bytes) -> None:
        assert self._monitor
        known = memory_map.unpack(hints)
        await asyncio.to_thread(memory_map.give, self._monitor, self.setup.definition.machine, known)

    async def receive(self, fd: int) -> None:
        await self.qmp.give_fd(_FD_NAME, fd)
        await self.qmp.execute("migrate-incoming", uri=_URI)

    def take(self, switch: Switch, until: Step) -> Outcome:
        assert self._monitor
        refused = f"QEMU did not accept the device state of {self.setup.definition.name}"
        try:
            if switch.step is Step.BEGUN:
                # All of it but the last byte, long before it is needed.
                self._monitor.begin("cont")
            outcome = self._monitor.take(switch, until, self._loaded)
        except VmmGoneError as error:
            raise CommandError(f"{refused}: {self._last_words()}") from error
        if outcome is Outcome.HUNG_UP:
            raise CommandError("QEMU went away before cont")
        return outcome

    def _loaded(self, event: dict[str, Any]) -> None:
        """QEMU has said how loading the state ended."""
        if event["data"]["status"] == "failed":
            raise CommandError(
                f"QEMU did not accept the device state of {self.setup.definition.name}", self._last_words()
            )
        self._loaded_wall_ns = wall_ns(event.get("timestamp"))

    def resume_loaded(self) -> Resumed:
        assert self._monitor
        self._monitor.finish()
        resumed = self._monitor.event("RESUME")
        # The guest runs: what is left need not be quick.
        to_ns = self.setup.to_ns
        self.drop_monitor()
        return Resumed(to_ns(self._loaded_wall_ns), to_ns(wall_ns(resumed.get("timestamp"))))

    def stay_loaded(self) -> Resumed:
        # The command that `take` has begun goes with its connection.
        self.drop_monitor()
        self._paused = True
        loaded_ns = self.setup.to_ns(self._loaded_wall_ns)
        return Resumed(loaded_ns, loaded_ns)

    def _last_words(self) -> str:
        return last_words(self.setup.log)


@dataclass(frozen=True)
class QemuFactory:
    """Makes QEMUs of one program."""

    qemu: Qemu = field(default_factory=Qemu)
    kind: Callable[[Qemu, VmmSetup], QemuVmm] = QemuVmm
    name: str = NAME
    _cpus: dict[str, str] = field(default_factory=dict, compare=False)  # as written out here
    _machines: set[tuple[str, str]] = field(default_factory=set, compare=False)  # with which it starts

    async def check(self, definition: VmDefinition) -> None:
        machine = definition.machine, definition.watchdog
        if definition.machine not in MACHINES and machine not in self._machines:
            await check_machine(self.qemu, *machine)
            self._machines.add(machine)
        if definition.cpu not in (FROZEN, HOST):
            await self._write_out(definition.cpu)

    async def written_out(self, cpu: str) -> str:
        return cpu if is_written_out(cpu) or follows_the_root(cpu) else await self._write_out(cpu)

    async def given(self, cpu: str) -> str:
        return await self._write_out(cpu) if follows_the_root(cpu) else ""

    async def _write_out(self, cpu: str) -> str:
        if cpu not in self._cpus:
            written = await cpus.write_out(self.qemu, cpu)
            # What it has written is understood.
            self._cpus.update({cpu: written, written: written})
        return self._cpus[cpu]

    def __call__(self, setup: VmmSetup) -> QemuVmm:
        return self.kind(self.qemu, setup)


def statistics(answer: Any) -> dict[str, int]:
    """The numbers on RAM in an answer to query-migrate; raises CommandError when there are none."""
    try:
        ram = answer["ram"]
        return {name: int(ram[name]) for name in ("total", "normal", "page-size", "transferred")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CommandError("QEMU does not tell what it has sent", f"it said {answer}") from error


def ram_copied(statistics: dict[str, int], ram_bytes: int) -> int:
    """Guest RAM that a migration sent, from query-migrate's `ram` (bytes).

    `total` is the size of all memory blocks that the migration covers: those that x-ignore-shared leaves out
    do not count, ROMs do. If it is smaller than the guest's RAM, that block was left out, every page of it.
    """
    if statistics["total"] < ram_bytes:
        return 0
    return statistics["normal"] * statistics["page-size"]
