# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs inside a root: what others do with a VM within one kernel, measured on the same kind of VM as ours.

`python3 -m multiroot.bench.in_root.driver` reads requests, a JSON object a line, and answers each with one.
QEMU, its command line, its console keeper and its guest are those of `multiroot.vm`; only what happens
between the two QEMUs differs. The RAM of both lies in the arena.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiroot import bugs
from multiroot.arena.arena import Arena, Entry
from multiroot.arena.atomics import tsc_clock
from multiroot.arena.backing import find_device
from multiroot.bench.in_root import cpr, cpr_exec, footprint, leave, postcopy
from multiroot.bench.in_root.baseline_vm import ROOT, RUN_DIR, BaselineVm
from multiroot.bench.names import IN_PLACE
from multiroot.bench.workload import enough_ticks
from multiroot.device.handle import Device
from multiroot.errors import BadRequestError, CommandError, MultirootError
from multiroot.net.network import RootNetwork
from multiroot.phase_names import PhaseName
from multiroot.vm import ticks
from multiroot.vm.definition import VmDefinition
from multiroot.vm.disk import Disk, name_of
from multiroot.vm.history import read_history
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.pmem import Pmem
from multiroot.vm.qemu import own_trace
from multiroot.vm.qemu.qmp import Event, Events
from multiroot.vm.qemu.vmm import QemuFactory
from multiroot.vm.stream import wait_for_ticks

STATE_FILE = Path("/tmp/bench-state")
FD_NAME = "bench"
UNLIMITED = 100 << 30  # bytes/s
DOWNTIME_LIMIT_MS = 300  # QEMU's own default
TUNED_DOWNTIME_LIMIT_MS = 50  # of who wants a short blackout and has the time to wait for it
CONVERGE_TIMEOUT_S = 60.0
KEPT_TICKS = 200  # that an answer has

# Ways in which RAM travels too, and so needs room of its own on the other side.
COPYING = ("pre-copy", "multifd", "stop-and-copy")
# Ways through a file, and what QEMU is told to be capable of on a way.
FILES = ("save-and-restore", "mapped-ram")
CAPABILITIES = {name: name for name in ("multifd", "mapped-ram")} | {postcopy.CAPABILITY: postcopy.NAME}
# Ways that need a VM of another make: that of the QEMU which the guest starts in, and of those it goes to.
FIRST = {cpr_exec.NAME: cpr_exec.CprExecVm, postcopy.NAME: postcopy.PostcopyVm}
NEXT = {cpr.NAME: cpr.CprBaselineVm, postcopy.NAME: postcopy.PostcopyVm}


class Bench:
    """One VM that goes from QEMU to QEMU."""

    def __init__(self, host: Host, tsc_khz: int) -> None:
        self._host = host
        self._tsc_khz = tsc_khz
        self._definition = VmDefinition("none")
        self._vm: BaselineVm | None = None
        self._spare: Entry | None = None
        self._count = 0
        self._saved_ns = 0  # when the source had saved all, 0 if that is not told

    async def start(
        self, disks: Sequence[dict[str, Any]] = (), node: str = "", way: str = "", **fields: Any
    ) -> dict[str, Any]:
        """Start the VM and wait until its guest ticks. With `node`, a block device of this root, it has that
        disk, whatever other roots have. It is made for `way` alone if that needs one of its own.
        """
        if node:
            found = Pmem(0, 0, read_only=False, node=Path(node))
            self._host = replace(self._host, find_disk=lambda _: found)
            disks = [{"source": name_of(0)}]
        self._definition = VmDefinition(disks=tuple(Disk(**each) for each in disks), **fields).checked()
        self._host.check(self._definition)
        self._host.check_free(self._definition)
        entry = await self._allocate(self._definition.name)
        vm = self._instance(entry, FIRST.get(way, BaselineVm))
        await vm.start()
        self._vm = vm
        await self._ticks(vm, self._enough())
        return {"qemu": vm.qmp.version}

    async def said(self) -> dict[str, Any]:
        """All that the guest has said since it came here."""
        pieces = read_history(self._current().folder.console_record)
        return {"text": b"".join(piece.data for piece in pieces).decode(errors="replace")}

    async def pause(self) -> dict[str, Any]:
        """Keep the guest off the CPU while others are measured."""
        await self._current().qmp.execute("stop")
        return {}

    async def go(self) -> dict[str, Any]:
        """Let it go on, and settle."""
        vm = self._current()
        await vm.qmp.execute("cont")
        seen = await self._ticks(vm, 0)
        await self._ticks(vm, len(seen.ticks) + self._enough())
        return {}

    async def sample(self, way: str) -> dict[str, Any]:
        """Take the VM to another QEMU; what it cost.

        `phases` are those of the blackout, as far as they are told apart: name, start and length in ns.
        `seen_ns` tells when the last ticks were seen.
        """
        source = self._current()
        self._saved_ns = 0
        started = self._host.clock()
        if isinstance(source, cpr_exec.CprExecVm):
            before = await self._ticks(source, 0)
            stopped, resumed, status = await source.exec_over()
            joined = await self._ticks(source, len(before.ticks) + self._enough())
        else:
            stopped, resumed, status, joined = await self._to_another(way, source)
        judged = ticks.continuity(joined.ticks)
        ram = status["ram"]
        return {
            "blackout_ns": resumed.at_ns - stopped.at_ns,
            "gap_ns": ticks.gap_around(joined.ticks, stopped.at_ns, resumed.at_ns),
            **ticks.gap_over(joined.ticks, stopped.at_ns, resumed.at_ns),
            "total_ns": resumed.at_ns - started,
            "sent_bytes": ram["transferred"],
            "missing_ticks": len(judged.missing) if judged else -1,
            "bad_bytes": judged.bad_bytes if judged else -1,
            "phases": self._phases(stopped.at_ns, resumed.at_ns),
            "seen_ns": [tick.seen_ns for tick in joined.ticks[-KEPT_TICKS:]],
        }

    def _phases(self, stopped_ns: int, resumed_ns: int) -> list[tuple[str, int, int]]:
        """Loading is what the target still does when the source has saved all."""
        saved_ns = self._saved_ns
        if not stopped_ns <= saved_ns <= resumed_ns:
            return []
        return [
            (PhaseName.SAVE_DEVICE_STATE, stopped_ns, saved_ns - stopped_ns),
            (PhaseName.LOAD_DEVICE_STATE, saved_ns, resumed_ns - saved_ns),
        ]

    async def _to_another(
        self, way: str, source: BaselineVm
    ) -> tuple[Event, Event, dict[str, Any], ticks.Stretch]:
        """To a QEMU of its own process: STOP, RESUME, the giver's account of it, the guest's ticks."""
        entry = await self._room() if way in COPYING else source.entry
        target = self._instance(entry, NEXT.get(way, BaselineVm))
        try:
            stopped, resumed, status = await self._move(way, source, target)
        except BaseException:
            await target.discard()
            raise
        target.state = VmState.RUNNING
        before = await self._ticks(source, 0)
        await source.end(VmState.HANDED)
        await target.bring_up_taps()
        if way in COPYING:
            self._spare = source.entry
        self._vm = target
        return stopped, resumed, status, before.then(await self._ticks(target, self._enough()))

    async def footprint(self) -> dict[str, Any]:
        """Memory of the VM's QEMU and of a second one that waits for the VM, bytes."""
        source = self._current()
        waiting = self._instance(source.entry)
        try:
            await waiting.start(giver=source.owner)
            assert source.vmm.process
            assert waiting.vmm.process
            return {
                "running": footprint.process(source.vmm.process.pid),
                "waiting": footprint.process(waiting.vmm.process.pid),
            }
        finally:
            await waiting.discard()

    async def _move(self, way: str, source: BaselineVm, target: BaselineVm) -> tuple[Event, Event, Any]:
        if way in FILES:
            return await self._through_a_file(way, source, target)
        if isinstance(target, cpr.CprBaselineVm):
            return await cpr.transfer(source, target)
        await target.start(giver=source.owner)
        for vm in (source, target):
            # An earlier turn may have left the source the other way round.
            await (_leave_ram(vm) if way == IN_PLACE else _copy_ram(vm, way))
        return await self._directly(way, source, target)

    async def _directly(self, way: str, source: BaselineVm, target: BaselineVm) -> tuple[Event, Event, Any]:
        """From one QEMU to the other, nothing of ours on the way."""
        stop_first = way == "stop-and-copy"
        uri = _listen(target) if way == "multifd" else await _connect(source, target)
        await target.qmp.execute("migrate-incoming", uri=uri)
        await source.qemu.trace.begin(own_trace.SAVE)
        with (
            source.qmp.watch("STOP", "MIGRATION") as sent,
            target.qmp.watch("MIGRATION", "RESUME") as came,
        ):
            if stop_first:
                await source.qmp.execute("stop")
            await source.qmp.execute("migrate", uri=uri)
            if way == postcopy.NAME:
                await source.qmp.execute("migrate-start-postcopy")
            stopped = await _event(sent, "STOP")
            if stop_first:
                await _completed(came)
                await target.qmp.execute("cont")
            resumed = await _event(came, "RESUME")
            self._saved_ns = (await _completed(sent)).at_ns
        return stopped, resumed, await source.qmp.execute("query-migrate")

    async def _through_a_file(
        self, way: str, source: BaselineVm, target: BaselineVm
    ) -> tuple[Event, Event, Any]:
        """A snapshot: stop, save all to a file in memory, end; start, load, go on."""
        await _copy_ram(source, way)
        with source.qmp.watch("STOP", "MIGRATION") as events:
            await source.qmp.execute("stop")
            stopped = await _event(events, "STOP")
            await source.qmp.execute("migrate", uri=f"file:{STATE_FILE}")
            await _completed(events)
        status = await source.qmp.execute("query-migrate")
        await source.end(VmState.HANDED)
        await target.start(giver=source.owner)
        await _copy_ram(target, way)
        with target.qmp.watch("MIGRATION", "RESUME") as events:
            await target.qmp.execute("migrate-incoming", uri=f"file:{STATE_FILE}")
            await _completed(events)
            await target.qmp.execute("cont")
            resumed = await _event(events, "RESUME")
        STATE_FILE.unlink()
        return stopped, resumed, status

    async def preload(self, kernel: str) -> dict[str, Any]:
        """Have the kernel loaded that `leave` is to start."""
        await asyncio.to_thread(leave.preload, kernel)
        return {}

    async def leave(self) -> dict[str, Any]:
        """Put the VM's device state into the arena and start the loaded kernel: this never returns."""
        vm = self._current()
        seen = await self._ticks(vm, 0)
        await leave.leave(vm, self._tsc_khz, seen.ticks[-1].counter)
        raise CommandError("kexec came back")

    async def end(self) -> None:
        """Leave nothing behind."""
        if self._vm is None:
            return
        await self._vm.discard()
        for entry in (self._vm.entry, self._spare):
            if entry is not None:
                self._host.arena.free(entry.name, entry.owner)

    async def _room(self) -> Entry:
        if self._spare is None:
            self._spare = await self._allocate(f"{self._definition.name}-2")
        return self._spare

    async def _allocate(self, name: str) -> Entry:
        size, checksum = self._definition.ram_bytes, self._definition.checksum()
        return await asyncio.to_thread(self._host.arena.allocate, name, size, checksum)

    def _instance(self, entry: Entry, kind: type[BaselineVm] = BaselineVm) -> BaselineVm:
        """Each has a folder of its own: two of them exist at a time."""
        self._count += 1
        host = replace(self._host, run_dir=RUN_DIR / str(self._count % 2))
        return kind(host, self._definition, entry)

    def _current(self) -> BaselineVm:
        if self._vm is None:
            raise BadRequestError("no VM was started")
        return self._vm

    def _enough(self) -> int:
        return enough_ticks(self._definition.append)

    async def _ticks(self, vm: Instance, count: int) -> ticks.Stretch:
        return await wait_for_ticks(vm, count)


async def _connect(source: BaselineVm, target: BaselineVm) -> str:
    """One socket between the two QEMUs; returns what both call it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await target.qmp.give_fd(FD_NAME, theirs.fileno())
        await source.qmp.give_fd(FD_NAME, ours.fileno())
    return f"fd:{FD_NAME}"


def _listen(target: BaselineVm) -> str:
    """An address at which the target takes as many connections as it is asked for."""
    path = target.folder.path / "migration.sock"
    path.unlink(missing_ok=True)
    return f"unix:{path}"


async def _leave_ram(vm: BaselineVm) -> None:
    """As our handoff sets it up."""
    await _switch(vm, dict.fromkeys(CAPABILITIES, False))
    await vm.qemu.set_up_migration()


async def _copy_ram(vm: BaselineVm, way: str) -> None:
    """Migrate as QEMU does when nobody tells it that RAM is shared."""
    await _switch(vm, {"x-ignore-shared": False, **{name: of == way for name, of in CAPABILITIES.items()}})
    limits: dict[str, Any] = {"max_bandwidth": UNLIMITED, "downtime_limit": DOWNTIME_LIMIT_MS}
    if way == "multifd":
        limits |= {"downtime_limit": TUNED_DOWNTIME_LIMIT_MS, "multifd_channels": os.cpu_count() or 1}
    await vm.qmp.execute("migrate-set-parameters", **limits)


async def _switch(vm: BaselineVm, states: dict[str, bool]) -> None:
    wanted = [{"capability": name, "state": state} for name, state in states.items()]
    await vm.qmp.execute("migrate-set-capabilities", capabilities=wanted)


async def _event(events: Events, name: str) -> Event:
    async with asyncio.timeout(CONVERGE_TIMEOUT_S):
        while (event := await events.next()).name != name:
            if event.data.get("status") == "failed":
                raise CommandError("QEMU's migration failed")
    return event


async def _completed(events: Events) -> Event:
    event = await events.until("completed", "failed")
    if event.data["status"] == "failed":
        raise CommandError("QEMU's migration failed")
    return event


async def serve() -> None:
    """Answer until standard input ends."""
    with Device() as device:
        khz = device.info().tsc_khz
    network = RootNetwork(1)
    await network.start()
    bench = Bench(
        Host(ROOT, Arena(find_device().node, ROOT), tsc_clock(khz), RUN_DIR, QemuFactory(), network), khz
    )
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            sys.stdout.write(json.dumps(await _answer(bench, json.loads(line))) + "\n")
            sys.stdout.flush()
    finally:
        await bench.end()
        await network.close()


async def _answer(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    verbs = ("start", "said", "pause", "go", "sample", "footprint", "preload", "leave")
    try:
        do = request.pop("do")
        verb: Any = getattr(bench, do) if do in verbs else None
        if verb is None:
            raise BadRequestError(f"cannot {do}")
        answer: dict[str, Any] = await verb(**request)
    except TimeoutError:
        return {"error": f"it did not come to an end within {CONVERGE_TIMEOUT_S:g} s"}
    except MultirootError as error:
        return {"error": str(error)}
    return answer


if __name__ == "__main__":
    with bugs.one_line("bench driver"):
        asyncio.run(serve())
