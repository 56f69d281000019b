# SPDX-License-Identifier: GPL-2.0-or-later
"""The taker's half: a VMM waits on the same memory, loads the device state, goes on once the VM is ours.

The owner word in the arena is the only thing that decides. Before it changes, anything that goes wrong ends
our VMM, which has never run the guest. After it has changed, the guest goes on here, whoever else is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from multiroot.arena.allocator import Extent
from multiroot.arena.arena import Standing
from multiroot.arena.layout import Owner
from multiroot.arena.switch import Switch
from multiroot.errors import BadRequestError, CommandError, ConflictError, MultirootError
from multiroot.handoff import wire
from multiroot.handoff.ahead import Ahead, is_the_same_for_long
from multiroot.handoff.incoming import Incoming, Taken
from multiroot.handoff.relay import IncomingState
from multiroot.handoff.takeover import Takeover, aborted, devices_of
from multiroot.passthrough.devices import DeviceState
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.vm import cpu_model
from multiroot.vm.definition import VmDefinition
from multiroot.vm.host import Arrival
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.notices import Notice
from multiroot.vm.vmm import VmmVersion

T = TypeVar("T")

log = logging.getLogger(__name__)

# So often a taker looks whether what it has prepared is still the giver's to hand over.
LOOK_S = 1.0


class Taker:
    """Takes VMs for one root; `side` names this root in phases, givers reach it at `address`."""

    def __init__(self, manager: VmManager, side: str, address: str) -> None:
        self._manager = manager
        self._host = manager.host
        self._side = side
        self._address = address
        self._incoming: dict[str, Incoming] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving: dict[asyncio.Task[None], str] = {}  # names of those that are being discarded
        self._ahead = Ahead(manager, self._discard)
        self._showing = asyncio.Lock()  # several may be prepared at once, devices one after the other
        self._takeover = Takeover(manager.host, side, self._discard)

    async def expect(
        self, definition: VmDefinition, extents: list[Extent], giver: Owner, vmm: VmmVersion, cpu: str = ""
    ) -> None:
        """Have a VMM wait for a VM that may be handed over some day; that costs its memory, and no more.

        Raises BadRequestError, ConflictError or CommandError, with nothing left behind, if this root cannot
        take that VM, or not without more than its definition.
        """
        self._manager.door.check()
        if not is_the_same_for_long(definition):
            raise BadRequestError(f"what {definition.name} needs is known only when it is handed over")
        _check_equal(VmmVersion(vmm.name), VmmVersion(self._host.vmm.name))
        if definition.kernel:
            await asyncio.to_thread(self._host.check_start, definition)
        vm = self._candidate(definition, extents, giver, cpu)
        await self._ahead.expect(vm, giver)
        try:
            _check_equal(vmm, VmmVersion(vm.vmm.name, vm.vmm.version))
            self._manager.door.check()
        except ConflictError:
            await self._ahead.drop(vm.name)
            raise

    async def prepare(
        self,
        definition: VmDefinition,
        extents: list[Extent],
        giver: Owner,
        vmm: VmmVersion,
        device: DeviceState | None = None,
        notices: tuple[Notice, ...] = (),
        stations: dict[str, str] | None = None,
        *,
        cpu: str = "",
        paused: bool = False,
    ) -> tuple[list[Phase], wire.Endpoint]:
        """Start a VMM on the VM's memory that waits for its device state, and say where the giver's is to
        connect. The guest runs on in the giver.

        `device` is the soft state of the device that the VM owns, which works on meanwhile; `notices` is what
        happened to the VM, `stations` the addresses that it uses; `cpu` is as in VmmSetup; one that is
        `paused` is not to run here either. Raises BadRequestError or ConflictError, with nothing left behind,
        if this root cannot take that VM.
        """
        self._manager.door.check()
        if any(disk.server for disk in definition.disks):
            # A VMM takes minutes to say that there is no way.
            await asyncio.to_thread(self._host.check_servers, definition)
        if definition.kernel:
            await asyncio.to_thread(self._host.check_start, definition)
        await self.abort(definition.name)
        _check_equal(VmmVersion(vmm.name), VmmVersion(self._host.vmm.name))
        vm = self._candidate(definition, extents, giver, cpu)
        if bool(definition.function) != (device is not None):
            raise BadRequestError(f"the state of {definition.name}'s own device does not come with it")
        waiting = await self._ahead.claim(vm)
        vm = waiting or vm
        await self._left(vm.name)
        phases = Phases(self._side, self._host.clock)
        vm.heard, vm.stations = notices, stations or {}
        vm.paused = vm.untouched = paused
        self._manager.register(vm)
        try:
            if device is not None:
                with phases.phase(PhaseName.SHOW_DEVICE, vm=vm.name):
                    async with self._showing:
                        show = devices_of(self._host).prepare
                        vm.functions = (await asyncio.to_thread(show, definition.function, device),)
            with vm.busy("prepared"), phases.phase(PhaseName.START_WAITING_QEMU, vm=vm.name):
                if waiting:
                    vm.wait_for(giver)
                else:
                    await vm.start(giver=giver)
                _check_equal(vmm, VmmVersion(vm.vmm.name, vm.vmm.version))
            if device is not None:
                with phases.phase(PhaseName.VERIFY_TRANSLATIONS, vm=vm.name):
                    devices_of(self._host).verify(definition.function, giver.root, vm.entry.extent)
            # It may have been shut meanwhile. Nothing is waited for from here until the VM can be aborted.
            self._manager.door.check()
            stream = self._listen()
        except BaseException:
            await self._discard(vm)
            raise
        loop = asyncio.get_running_loop()
        now, expiry = loop.time(), loop.call_later(LOOK_S, self._look, vm.name)
        switch = vm.word.switch(giver, self._host.root, self._host.clock)
        connected = self._in_background(self._connect(vm, stream, switch))
        transfer = Phases(self._side, self._host.clock)
        self._incoming[vm.name] = Incoming(
            vm, giver, stream, now, expiry, connected, transfer, switch, device=device
        )
        return list(phases.finished), stream.endpoint

    async def hint(self, name: str, hints: bytes) -> None:
        """Give the waiting VMM what the giver's said, while the guest runs on in the giver.

        Raises BadRequestError if the VM has not been prepared here, has its hints already, or is being
        transferred.
        """
        incoming = self._prepared(name)
        if incoming.hinted:
            raise BadRequestError(f"{name} has its hints already")
        incoming.hinted = self._in_background(self._take_hints(incoming, hints))
        await asyncio.shield(incoming.hinted)

    async def ready(self, name: str) -> Incoming:
        """Wait until the giver's connection has come and the VMM reads from it.

        Raises BadRequestError if the VM has not been prepared here, or is being transferred already.
        """
        incoming = self._prepared(name)
        incoming.transferring = True
        incoming.expiry.cancel()
        try:
            if incoming.hinted:
                # One that its giver did not wait for: it talks to the VMM, too.
                await asyncio.shield(incoming.hinted)
            await asyncio.shield(incoming.connected)
            # Not later: what comes for all stations while the guest stands still waits for it in the tap, and
            # what the guest sends first gets out.
            await incoming.vm.bring_up_taps()
            incoming.arrival = self._arriving(incoming.vm)
            incoming.vm.hurry(True)
        except BaseException:
            self._in_background(self.abort(name))
            raise
        return incoming

    def _arriving(self, vm: Instance) -> Arrival | None:
        try:
            return self._host.network.arriving(vm.cards) if vm.taps and self._host.network else None
        except MultirootError as error:
            log.warning("the network of %s will hear late that it is here: %s", vm.name, error)
            return None

    def give_up(self, incoming: Incoming) -> None:
        """`transfer` will not be called after `ready`."""
        if incoming.abandon():
            self._in_background(self._drop_and_discard(incoming))

    async def transfer(self, name: str) -> Taken:
        """After `ready`: when the VMM has loaded the device state, take ownership, resume the guest.

        Raises FencedError when the giver took the VM back meanwhile, CommandError when the VMM does not
        accept the state; it is gone then.
        """
        incoming = self._incoming.get(name)
        if incoming is None:
            raise aborted(name)
        taking = self._in_background(self._take(incoming))
        try:
            return await asyncio.shield(taking)
        except BaseException:
            if incoming.abandon():
                taking.cancel()
                self._in_background(self._drop_and_discard(incoming))
            raise
        finally:
            if incoming.taken:
                self._drop(incoming)

    async def _take(self, incoming: Incoming) -> Taken:
        taken = await self._takeover.run(incoming)
        # Its giver may have gone, and nobody else waits for it.
        self._wait_for(taken.settled).add_done_callback(_tell)
        return taken

    async def abort(self, name: str, *, expected: bool = False) -> None:
        """End a VM that is prepared or being transferred, also one that is only `expected` if that is asked
        for; nothing if there is none or it has been taken.
        """
        if expected:
            await self._ahead.drop(name)
        incoming = self._incoming.get(name)
        if incoming is not None and incoming.abandon():
            await self._drop_and_discard(incoming)
        await self._left(name)

    async def _left(self, name: str) -> None:
        """One that was given up before may still be on its way out, and has the folder of that name."""
        if leaving := {task for task, left in self._leaving.items() if left == name}:
            await asyncio.wait(leaving)

    async def _drop_and_discard(self, incoming: Incoming) -> None:
        self._drop(incoming)
        await self._discard(incoming.vm)

    def _drop(self, incoming: Incoming) -> None:
        if self._incoming.get(incoming.vm.name) is incoming:
            del self._incoming[incoming.vm.name]
        incoming.expiry.cancel()
        incoming.disconnect()
        incoming.stream.close()

    async def abort_all(self) -> None:
        """End everything that has not been taken yet."""
        for name in tuple(self._incoming):
            await self.abort(name)
        await self._ahead.drop_all()

    async def close(self) -> None:
        """End everything that is only prepared."""
        await self.abort_all()
        # What went wrong in one is told by the call that began it.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _candidate(self, definition: VmDefinition, extents: list[Extent], giver: Owner, cpu: str) -> Instance:
        """The VM to be, if what the giver says agrees with the arena and with this root."""
        if definition != definition.checked():
            raise BadRequestError(f"the definition of {definition.name} is not complete")
        cpu_model.check_given(definition.cpu, cpu)
        self._host.check(definition)
        self._host.check_free(definition)
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
        vm = self._manager.made(definition, entry, cpu)
        # From the beginning: whoever asks is told by its owner what it is.
        vm.state = VmState.INCOMING
        return vm

    async def _take_hints(self, incoming: Incoming, hints: bytes) -> None:
        vm = incoming.vm
        with incoming.phases.phase(PhaseName.SET_MEMORY_MAP, vm=vm.name):
            try:
                await vm.vmm.take_hints(hints)
            except CommandError as error:
                log.warning("loading the state of %s will take longer: %s", vm.name, error)

    def _prepared(self, name: str) -> Incoming:
        incoming = self._incoming.get(name)
        if incoming is None or incoming.transferring:
            raise BadRequestError(f"{name} has not been prepared here")
        return incoming

    def _listen(self) -> wire.Listener:
        try:
            return wire.Listener(self._address)
        except OSError as error:
            raise ConflictError(f"cannot listen on {self._address}: {error.strerror}") from error

    async def _connect(self, vm: Instance, stream: wire.Listener, switch: Switch) -> IncomingState:
        """Connect our VMM before the guest stops: nothing but bytes is left for the blackout."""
        try:
            sock = await stream.accept()
        finally:
            stream.close()
        state = IncomingState(
            sock,
            stream.endpoint.key,
            vm.name,
            self._host.clock,
            lambda whole: switch.state_ended(whole=whole),
        )
        try:
            with state.vmm_end as end:
                await vm.vmm.receive(end.fileno())
        except BaseException:
            state.close()
            raise
        return state

    async def _discard(self, vm: Instance) -> None:
        vm.hurry(False)
        self._manager.unregister(vm)
        leaving = self._in_background(vm.discard())
        self._leaving[leaving] = vm.name
        leaving.add_done_callback(self._leaving.pop)
        await asyncio.shield(leaving)

    def _look(self, name: str) -> None:
        """Give up what is only prepared when its giver is late, has ended, or has raised the owner word.

        With a word that was raised it goes on without this taker: it may have been restarted.
        """
        incoming = self._incoming.get(name)
        if incoming is None:
            return
        loop = asyncio.get_running_loop()
        kept = incoming.vm.word.read() != incoming.giver
        lost = self._host.arena.standing(incoming.giver) is Standing.LOST
        if not kept and not lost and loop.time() < incoming.waits_until:
            incoming.expiry = loop.call_later(LOOK_S, self._look, name)
            return
        what = "kept it" if kept else "ended" if lost else "never transferred it"
        log.warning("%s was prepared, but its giver %s", name, what)
        self._in_background(self.abort(name))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that lives on when the call that began it is gone."""
        return self._wait_for(asyncio.create_task(work))

    def _wait_for(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Before this taker is closed."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _tell(settled: asyncio.Task[list[Phase]]) -> None:
    if not settled.cancelled() and (error := settled.exception()):
        log.warning("a VM that was taken is not settled: %s", error)


def _check_equal(giver: VmmVersion, ours: VmmVersion) -> None:
    if giver != ours:
        raise ConflictError(
            f"the giver's VMM is {giver}, ours {ours}", "device state passes between equal versions only"
        )
