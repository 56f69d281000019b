# SPDX-License-Identifier: GPL-2.0-or-later
"""The giver's half: prepare the taker while the guest runs, stream once, then let go, or take the VM back.

Before anything is undone here, the owner word is raised by compare-and-swap: that fences a taker who is still
at work. If the word shows that the taker was faster, this root never runs the VM again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import grpc
import grpc.aio

from multiroot.arena.errors import FencedError
from multiroot.arena.layout import Owner
from multiroot.errors import CommandError, ConflictError, MultirootError, PeerLostError, WaitTimeoutError
from multiroot.handoff import wire
from multiroot.handoff.taker import LOADING
from multiroot.passthrough import messages as device
from multiroot.phases import Phase, Phases
from multiroot.rpc import phases as phase_messages
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, device_pb2, handoff_pb2, handoff_pb2_grpc
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_to_proto, extent_to_proto, memory_map_to_proto
from multiroot.vm.qemu import memory_map
from multiroot.vm.qemu.memory_map import MemoryMap
from multiroot.vm.qemu.qmp import Event, Events, QemuGoneError

log = logging.getLogger(__name__)

PREPARE_TIMEOUT_S = 60.0
TRANSFER_TIMEOUT_S = 30.0
ABORT_TIMEOUT_S = 5.0
TAKER = "the new root's agent"

TransferCall = grpc.aio.UnaryStreamCall[handoff_pb2.TransferRequest, handoff_pb2.TransferProgress]

# Returns when the taker's root is known to be gone, which a connection to it may never tell.
Lost = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Saved:
    """The giver's QEMU after it wrote the device state."""

    stopped_ns: int
    saved_ns: int
    sent_bytes: int
    ram_bytes_copied: int


async def hand_over(
    manager: VmManager, name: str, taker: grpc.aio.Channel, phases: Phases, lost: Lost | None = None
) -> coordinator_pb2.HandoffResult:
    """Hand the running VM `name` to the root behind `taker`.

    Whatever happens, exactly one root runs it afterwards. Returns once the taker does; if its answer got lost
    but the arena shows that it is the owner, the result lacks what only the taker knows (resumed_ns is 0).
    Raises what went wrong when the VM goes on here, or when the taker took it and failed.
    """
    vm = manager.running(name)
    with vm.busy("handed over"):
        attempt = _Attempt(vm, taker, phases)
        work = asyncio.create_task(attempt.run())
        try:
            return await _unless_lost(work, lost, vm.name)
        except BaseException as error:
            # Settled even if this call is cancelled: a VM must not be left stopped in both roots.
            outcome = await asyncio.shield(asyncio.create_task(attempt.settle(error)))
            if outcome is None or not isinstance(error, MultirootError):
                raise
            return outcome


async def _unless_lost(
    work: asyncio.Task[coordinator_pb2.HandoffResult], lost: Lost | None, name: str
) -> coordinator_pb2.HandoffResult:
    watch = asyncio.ensure_future(lost()) if lost else None
    try:
        await asyncio.wait({work, watch} if watch else {work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise PeerLostError(f"the root that was to take {name} is gone")
        return work.result()
    finally:
        for task in (work, watch):
            if task:
                task.cancel()
        await asyncio.wait({work})


class _Attempt:
    """One handoff, from preparing to success or to the VM going on here."""

    def __init__(self, vm: Instance, taker: grpc.aio.Channel, phases: Phases) -> None:
        self._vm = vm
        self._root = vm.host.root
        self._phases = phases
        self._stub = handoff_pb2_grpc.HandoffServiceStub(taker)
        self._stopped_ns = 0

    async def run(self) -> coordinator_pb2.HandoffResult:
        vm = self._vm
        with self._phases.phase("prepare", vm=vm.name):
            # The map takes QEMU some time, during which the taker's starts.
            begin, _ = await asyncio.gather(self._memory_map(), self._connect())
        with vm.qmp.watch("STOP", "MIGRATION") as events:
            answer = await self._transfer(begin)
            saved = await self._saved(events)
        return await self._let_go(answer, saved)

    async def _connect(self) -> None:
        await self._prepare_qemu(await self._prepare_taker())

    async def _prepare_taker(self) -> wire.Endpoint:
        vm = self._vm
        request = handoff_pb2.PrepareRequest(
            definition=definition_to_proto(vm.definition),
            extents=[extent_to_proto(vm.entry.extent)],
            giver=self._root,
            epoch=vm.owner.epoch,
            qemu_version=vm.qmp.version,
            device=await self._describe_device(),
        )
        with translated(TAKER):
            answer = await self._stub.Prepare(request, timeout=PREPARE_TIMEOUT_S)
        for phase in answer.phases:
            self._phases.add(phase_messages.from_proto(phase))
        return wire.Endpoint(answer.stream.host, answer.stream.port, answer.stream.key)

    async def _memory_map(self) -> MemoryMap:
        """What makes the taker faster, and nothing that it needs."""
        vm = self._vm
        try:
            return await memory_map.read(vm.qmp, vm.definition.machine)
        except CommandError as error:
            log.warning("the taker of %s will load its state more slowly: %s", vm.name, error)
            return memory_map.NOTHING

    async def _describe_device(self) -> device_pb2.DeviceState | None:
        """Soft state of the device that the VM owns; it does not change before the switch."""
        vm = self._vm
        if not vm.definition.device or vm.host.devices is None:
            return None
        state = await asyncio.to_thread(vm.host.devices.describe, vm.definition.device, vm.entry.extent)
        return device.state_to_proto(state)

    async def _prepare_qemu(self, stream: wire.Endpoint) -> None:
        """Connect our QEMU with the taker's; from now on it alone has the connection."""
        try:
            sock = await wire.connect(stream)
        except OSError as error:
            raise PeerLostError(f"{TAKER} does not answer on {stream.host}:{stream.port}") from error
        with sock:
            await self._vm.qmp.give_fd(wire.FD_NAME, sock.fileno())

    async def _transfer(self, begin: MemoryMap) -> handoff_pb2.Taken:
        """Only when the taker's QEMU reads from the connection let ours stop the guest and write."""
        request = handoff_pb2.TransferRequest(name=self._vm.name, memory_map=memory_map_to_proto(begin))
        call = self._stub.Transfer(request, timeout=TRANSFER_TIMEOUT_S)
        try:
            with translated(TAKER):
                # It may refuse; the guest need not even notice.
                await self._next(call, "ready")
                self._vm.hurry(True)
                self._vm.state = VmState.FROZEN
                await self._vm.qmp.execute("migrate", uri=wire.URI)
                with self._vm.qmp.unread():
                    return (await self._next(call, "taken")).taken
        finally:
            call.cancel()

    async def _next(self, call: TransferCall, event: str) -> handoff_pb2.TransferProgress:
        """What the taker says next, which has to be this; its errors come as grpc's."""
        progress = await call.read()
        if not isinstance(progress, handoff_pb2.TransferProgress) or progress.WhichOneof("event") != event:
            raise PeerLostError(f"{TAKER} broke off the transfer of {self._vm.name}")
        return progress

    async def _saved(self, events: Events) -> Saved:
        """When the guest stopped, when its state was written, and whether any of its RAM went along."""
        stopped = await self._until(events, lambda event: event.name == "STOP")
        self._stopped_ns = stopped.at_ns
        saved = await self._until(events, lambda event: event.data.get("status") == "completed")
        ram = (await self._vm.qmp.execute("query-migrate"))["ram"]
        copied = ram_copied(ram, self._vm.definition.ram_bytes)
        return Saved(stopped.at_ns, saved.at_ns, ram["transferred"], copied)

    async def _until(self, events: Events, wanted: Callable[[Event], bool]) -> Event:
        while not wanted(event := await events.next()):
            if event.data.get("status") == "failed":
                raise CommandError("QEMU could not write the device state", self._vm.folder.last_words())
        return event

    async def _let_go(self, answer: handoff_pb2.Taken, saved: Saved) -> coordinator_pb2.HandoffResult:
        for phase in map(phase_messages.from_proto, answer.phases):
            self._phases.add(_since(phase, saved.saved_ns) if phase.name == LOADING else phase)
        side = self._phases.side
        self._phases.add(
            Phase(
                "save device state", side, saved.stopped_ns, saved.saved_ns - saved.stopped_ns, blackout=True
            )
        )
        with self._phases.phase("end old QEMU", vm=self._vm.name):
            await self._gone(self._vm.word.read())
        return coordinator_pb2.HandoffResult(
            name=self._vm.name,
            device_state_bytes=saved.sent_bytes,
            ram_bytes_copied=saved.ram_bytes_copied,
            epoch=answer.epoch,
            stopped_ns=saved.stopped_ns,
            resumed_ns=answer.resumed_ns,
            device=answer.device if answer.HasField("device") else None,
        )

    async def settle(self, error: BaseException) -> coordinator_pb2.HandoffResult | None:
        """Make sure that one root runs the VM: the result if the taker does and only its answer was lost."""
        vm = self._vm
        log.warning("handing %s over: %s", vm.name, error or type(error).__name__)
        if not vm.active:
            return None
        try:
            vm.owner = vm.word.take(vm.owner, self._root)
        except FencedError as fenced:
            owner = Owner(fenced.root, fenced.epoch)
            if owner.root != self._root:
                sent = await self._sent()
                await self._gone(owner)
                return self._without_answer(owner, sent) if _answer_lost(error) else None
            vm.owner = owner  # The taker could not run it and gave it back.
        await self._go_on()
        if not isinstance(error, PeerLostError):
            await self._tell_taker()
        return None

    async def _go_on(self) -> None:
        """Let the guest go on here, wherever in its migration QEMU is."""
        vm = self._vm
        vm.hurry(False)
        try:
            with self._phases.phase("resume in the giver", vm=vm.name), vm.qmp.watch("MIGRATION") as events:
                status = await vm.qmp.execute("query-migrate")
                if status.get("status") in ("setup", "active", "device", "cancelling"):
                    await vm.qmp.execute("migrate_cancel")
                    await events.until("cancelled", "completed", "failed")
                if vm.definition.device and vm.host.devices is not None:
                    vm.host.devices.take_back(vm.definition.device, vm.entry.extent)
                if "error-desc" in status:
                    log.warning("QEMU's migration of %s: %s", vm.name, status["error-desc"])
                await vm.resume()
        except (QemuGoneError, ConflictError) as error:
            log.error("%s cannot go on: %s", vm.name, error)
            await vm.fail()

    async def _tell_taker(self) -> None:
        """Let the taker clean up; it is fenced already, so this may fail."""
        request = handoff_pb2.AbortRequest(name=self._vm.name)
        try:
            with translated(TAKER):
                await self._stub.Abort(request, timeout=ABORT_TIMEOUT_S)
        except MultirootError as error:
            log.warning("the taker of %s does not know of the abort: %s", self._vm.name, error)

    async def _gone(self, owner: Owner) -> None:
        """The VM is another root's: end what is left of it here."""
        self._vm.owner = owner
        self._vm.hurry(False)
        await self._vm.end(VmState.HANDED)

    async def _sent(self) -> int:
        """Bytes that our QEMU wrote, as long as it can be asked."""
        try:
            status = await self._vm.qmp.execute("query-migrate")
        except QemuGoneError:
            return 0
        return int(status.get("ram", {}).get("transferred", 0))

    def _without_answer(self, owner: Owner, sent: int) -> coordinator_pb2.HandoffResult:
        return coordinator_pb2.HandoffResult(
            name=self._vm.name,
            device_state_bytes=sent,
            epoch=owner.epoch,
            stopped_ns=self._stopped_ns,
        )


def ram_copied(statistics: dict[str, int], ram_bytes: int) -> int:
    """Guest RAM that a migration sent, from query-migrate's `ram` (bytes).

    `total` is the size of all memory blocks that the migration covers: those that x-ignore-shared leaves out
    do not count, ROMs do. If it is smaller than the guest's RAM, that block was left out, every page of it.
    """
    if statistics["total"] < ram_bytes:
        return 0
    return statistics["normal"] * statistics["page-size"]


def _since(phase: Phase, start_ns: int) -> Phase:
    """The taker loads while we save; what it still needs when all is saved is its own."""
    end_ns = phase.end_ns or phase.start_ns
    start_ns = min(start_ns, end_ns)
    return replace(phase, start_ns=start_ns, duration_ns=end_ns - start_ns)


def _answer_lost(error: BaseException) -> bool:
    """Whether the taker may well be fine, as opposed to having said that it failed."""
    return isinstance(error, (PeerLostError, WaitTimeoutError))
