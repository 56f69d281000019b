# SPDX-License-Identifier: GPL-2.0-or-later
"""The taker's half: a QEMU waits on the same memory, loads the device state, goes on once the VM is ours.

The owner word in the arena is the only thing that decides. Before it changes, anything that goes wrong ends
our QEMU, which has never run the guest. After it has changed, the guest goes on here, whoever else is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from multiroot.arena.allocator import Extent
from multiroot.arena.layout import Owner
from multiroot.device.passthrough import Comparison, Translation
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.handoff import wire
from multiroot.passthrough.devices import Devices, DeviceState
from multiroot.phases import Phase, Phases
from multiroot.vm.definition import VmDefinition
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.qmp import Event, Events, QemuGoneError

T = TypeVar("T")

log = logging.getLogger(__name__)

# A giver that prepared and never transferred is dead or has changed its mind.
PREPARED_FOR_S = 120.0


@dataclass
class Incoming:
    """A prepared VM. `taken` is set with the owner word: from then on there is no way back."""

    vm: Instance
    giver: Owner
    sock: socket.socket
    expiry: asyncio.TimerHandle
    transferring: bool = False
    taken: bool = False
    aborted: bool = False
    device: DeviceState | None = None
    received: int = 0
    last_chunk_ns: int = 0


@dataclass(frozen=True)
class DeviceMove:
    """How the VM's own device came over: its translations before and after, and how they compared."""

    before: Translation
    after: Translation
    seen: Comparison


@dataclass(frozen=True)
class Taken:
    """What became of a transfer; times in ns on the machine-wide clock."""

    device_state_bytes: int
    epoch: int
    resumed_ns: int
    device: DeviceMove | None = None
    phases: list[Phase] = field(default_factory=list)


class Taker:
    """Takes VMs for one root; `side` names this root in phases."""

    def __init__(self, manager: VmManager, side: str) -> None:
        self._manager = manager
        self._host = manager.host
        self._side = side
        self._incoming: dict[str, Incoming] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def prepare(
        self,
        definition: VmDefinition,
        extents: list[Extent],
        giver: Owner,
        qemu_version: str,
        device: DeviceState | None = None,
    ) -> list[Phase]:
        """Start a QEMU on the VM's memory that waits for its device state. The guest runs on in the giver.

        `device` is the soft state of the device that the VM owns, which works on meanwhile. Raises
        BadRequestError or ConflictError, with nothing left behind, if this root cannot take that VM.
        """
        await self.abort(definition.name)
        vm = self._candidate(definition, extents, giver)
        if bool(definition.device) != (device is not None):
            raise BadRequestError(f"the state of {definition.name}'s own device does not come with it")
        phases = Phases(self._side, self._host.clock)
        self._manager.register(vm)
        try:
            if device is not None:
                with phases.phase("show device", vm=vm.name):
                    vm.device = await asyncio.to_thread(self._devices().prepare, definition.device, device)
            with vm.busy("prepared"), phases.phase("start waiting QEMU", vm=vm.name):
                await vm.start(giver=giver)
                if vm.qmp.version != qemu_version:
                    raise ConflictError(
                        f"the giver's QEMU is {qemu_version}, ours {vm.qmp.version}",
                        "device state passes between equal versions only",
                    )
                sock = await self._listen(vm)
            if device is not None:
                with phases.phase("verify translations", vm=vm.name):
                    self._devices().verify(definition.device, giver.root, vm.entry.extent)
        except BaseException:
            await self._discard(vm)
            raise
        expiry = asyncio.get_running_loop().call_later(PREPARED_FOR_S, self._expire, vm.name)
        self._incoming[vm.name] = Incoming(vm, giver, sock, expiry, device=device)
        return phases.finished

    async def transfer(self, name: str, data: AsyncIterator[bytes]) -> Taken:
        """Load the device state as it comes, take ownership, resume the guest.

        Raises FencedError when the giver took the VM back meanwhile, CommandError when QEMU does not accept
        the state; our QEMU is gone then.
        """
        incoming = self._incoming.get(name)
        if incoming is None or incoming.transferring:
            raise BadRequestError(f"{name} has not been prepared here")
        incoming.transferring = True
        incoming.expiry.cancel()
        phases = Phases(self._side, self._host.clock)
        feeding = self._in_background(wire.feed(incoming.sock, self._counted(incoming, data)))
        taking = self._in_background(self._take_over(incoming, phases))
        try:
            await asyncio.wait({feeding, taking}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and not taking.done() and feeding.exception():
                raise CommandError(f"the device state of {name} did not come whole: {feeding.exception()}")
            return await asyncio.shield(taking)
        except BaseException:
            if not incoming.taken:
                taking.cancel()
                self._in_background(self.abort(name))
            raise
        finally:
            feeding.cancel()
            if incoming.taken:
                self._drop(incoming)

    async def abort(self, name: str) -> None:
        """End a VM that is prepared or being transferred; nothing if there is none or it has been taken."""
        incoming = self._incoming.get(name)
        if incoming is not None and not incoming.taken:
            incoming.aborted = True
            self._drop(incoming)
            await self._discard(incoming.vm)

    def _drop(self, incoming: Incoming) -> None:
        if self._incoming.get(incoming.vm.name) is incoming:
            del self._incoming[incoming.vm.name]
        incoming.expiry.cancel()
        incoming.sock.close()

    async def close(self) -> None:
        """End everything that is only prepared."""
        for name in tuple(self._incoming):
            await self.abort(name)
        await asyncio.gather(*self._tasks)

    def _candidate(self, definition: VmDefinition, extents: list[Extent], giver: Owner) -> Instance:
        """The VM to be, if what the giver says agrees with the arena and with this root."""
        if definition != definition.checked():
            raise BadRequestError(f"the definition of {definition.name} is not complete")
        self._host.check(definition)
        known = self._manager.find(definition.name)
        if known and known.active:
            raise ConflictError(f"root {self._host.root} already has a VM {known.name} ({known.state})")
        entry = self._host.arena.find(definition.name)
        if extents != [entry.extent]:
            raise ConflictError(f"the arena has other extents for {definition.name} than the giver")
        if entry.record.definition != definition.checksum():
            raise ConflictError(f"the arena has another definition of {definition.name} than the giver")
        if entry.owner != giver:
            raise ConflictError(
                f"{definition.name} is owned by root {entry.owner.root} in epoch {entry.owner.epoch},"
                f" not by root {giver.root} in epoch {giver.epoch}"
            )
        return Instance(self._host, definition, entry)

    async def _listen(self, vm: Instance) -> socket.socket:
        """Connect QEMU's incoming side now: nothing but bytes is left for the blackout."""
        ours, theirs = wire.make_pair()
        with theirs:
            await vm.qmp.give_fd(wire.FD_NAME, theirs.fileno())
        await vm.qmp.execute("migrate-incoming", uri=wire.URI)
        return ours

    async def _counted(self, incoming: Incoming, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in data:
            incoming.received += len(chunk)
            incoming.last_chunk_ns = self._host.clock()
            yield chunk

    async def _take_over(self, incoming: Incoming, phases: Phases) -> Taken:
        vm, clock = incoming.vm, self._host.clock
        with vm.qmp.watch("MIGRATION", "RESUME") as events:
            loaded = await self._loaded(vm, events)
            if incoming.aborted:
                raise ConflictError(f"the handoff of {vm.name} was aborted")
            before = clock()
            vm.owner = vm.word.take(incoming.giver, self._host.root)
            incoming.taken = True
            owned = clock()
            try:
                seen = self._switch(incoming)
                switched = clock()
                await vm.qmp.execute("cont")
            except (CommandError, ConflictError):
                await self._give_back(incoming)
                raise
            resumed = await self._resumed(events)
        vm.state = VmState.RUNNING
        first = min(incoming.last_chunk_ns, loaded.at_ns)
        phases.add(_span("load device state", self._side, first, loaded.at_ns, blackout=True))
        phases.add(_span("commit", self._side, before, owned, blackout=True))
        if seen:
            phases.add(_span("switch DMA", self._side, owned, switched, blackout=True))
        phases.add(_span("resume", self._side, switched, resumed.at_ns, blackout=True))
        await self._settle_in(vm, phases)
        move = self._move(incoming, seen)
        return Taken(incoming.received, vm.owner.epoch, resumed.at_ns, move, phases.finished)

    def _devices(self) -> Devices:
        """Raises BadRequestError if this root can take no devices."""
        if self._host.devices is None:
            raise BadRequestError(f"root {self._host.root} takes no devices")
        return self._host.devices

    def _switch(self, incoming: Incoming) -> Comparison | None:
        """Make the VM's device reach its memory through our tables; ConflictError leaves it the giver's."""
        vm = incoming.vm
        if incoming.device is None:
            return None
        return self._devices().take(vm.definition.device, incoming.giver.root, vm.entry.extent)

    def _move(self, incoming: Incoming, seen: Comparison | None) -> DeviceMove | None:
        vm = incoming.vm
        if incoming.device is None or seen is None:
            return None
        after = self._devices().translation(vm.definition.device, vm.entry.extent)
        return DeviceMove(incoming.device.translation, after, seen)

    async def _loaded(self, vm: Instance, events: Events) -> Event:
        try:
            event = await events.until("completed", "failed")
        except QemuGoneError as error:
            raise CommandError(
                f"QEMU did not accept the device state of {vm.name}: {vm.folder.last_words()}"
            ) from error
        if event.data["status"] == "failed":
            raise CommandError(f"QEMU did not accept the device state of {vm.name}", vm.folder.last_words())
        return event

    async def _resumed(self, events: Events) -> Event:
        while (event := await events.next()).name != "RESUME":
            pass
        return event

    async def _give_back(self, incoming: Incoming) -> None:
        """QEMU refused to let the guest run, so it never ran here: the giver may have it back."""
        vm = incoming.vm
        await self._discard(vm)
        vm.owner = vm.word.take(vm.owner, incoming.giver.root)

    async def _settle_in(self, vm: Instance, phases: Phases) -> None:
        """What the running guest need not wait for."""
        with phases.phase("bring up link", vm=vm.name):
            if vm.tap and self._host.network:
                await self._host.network.bring_up(vm.tap)
                await vm.qmp.execute("announce-self", initial=50, max=550, rounds=5, step=100)
        vm.keep()

    async def _discard(self, vm: Instance) -> None:
        self._manager.unregister(vm)
        await vm.discard()

    def _expire(self, name: str) -> None:
        log.warning("%s was prepared, but its giver never transferred it", name)
        self._in_background(self.abort(name))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that lives on when the call that began it is gone."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _span(name: str, side: str, start_ns: int, end_ns: int, *, blackout: bool) -> Phase:
    return Phase(name, side, start_ns, max(0, end_ns - start_ns), blackout=blackout)
