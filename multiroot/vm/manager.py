# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this root, by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from multiroot.arena.arena import Entry, Standing
from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.vm import claims, left_over
from multiroot.vm.definition import VmDefinition, check_name
from multiroot.vm.door import Door
from multiroot.vm.home import Homes
from multiroot.vm.host import Host
from multiroot.vm.instance import LIVE, Instance, VmState
from multiroot.vm.unbroken import finished, unbroken

log = logging.getLogger(__name__)


async def nobody_waits(name: str) -> None:
    """For a manager of whose VMs none is expected."""


class VmManager:
    """Runs, finds and ends VMs; `adopt` finds the VMs that an earlier agent of this root left running.

    `make_way` ends what waits here for a VM that had that name and may come from another root.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.make_way: Callable[[str], Awaitable[None]] = nobody_waits
        self.door = Door(host.root)
        self.homes = Homes(host.arena)
        self._vms: dict[str, Instance] = {}
        self._allocating: set[str] = set()

    @finished
    async def run(
        self, definition: VmDefinition, settled: Callable[[VmDefinition], None] = lambda _: None
    ) -> Instance:
        """Start a new VM in an extent of its own and return once the guest runs.

        `settled` gets the definition as it is from now on, once no other root can start that VM or change it,
        and may raise. Raises BadRequestError or ConflictError, having changed nothing, for a definition that
        cannot be run here.
        """
        self.door.check()
        definition = definition.checked()
        await asyncio.to_thread(self._check_here, definition)
        if definition.disks:
            self.host.check_free(definition)
            await asyncio.to_thread(self.host.check_disks, definition)
        self._check_free(definition.name)
        self._allocating.add(definition.name)
        try:
            await self.make_way(definition.name)
            # From here on it means the same in every root.
            definition = replace(definition, cpu=await self.host.vmm.written_out(definition.cpu))
            cpu = await self.host.vmm.given(definition.cpu)
            functions = await self._acquire(definition)
            # Zeroing a large extent takes seconds; the agent has other things to answer meanwhile.
            entry = await asyncio.to_thread(
                self.host.arena.allocate, definition.name, definition.ram_bytes, definition.checksum()
            )
        finally:
            self._allocating.discard(definition.name)
        vm = self.made(definition, entry, cpu)
        vm.functions = functions
        self._vms[vm.name] = vm
        try:
            await asyncio.to_thread(settled, definition)
            await asyncio.to_thread(claims.claim, self.host.arena, vm.name, definition.disks)
            self.door.check()
            with vm.busy("started"):
                await vm.start()
        except BaseException:
            del self._vms[vm.name]
            self._free(vm.name, vm.owner)
            raise
        return vm

    async def check(self, definition: VmDefinition) -> None:
        """Raises BadRequestError for a VM that could never start here, in words that tell why.

        All that is known before a VM starts is asked here, so that nobody has a VM of which only its start
        tells that.
        """
        await asyncio.to_thread(self._check_here, definition)
        await self.host.vmm.check(definition)

    def _check_here(self, definition: VmDefinition) -> None:
        self.host.check(definition)
        self.host.check_start(definition)
        self.host.check_room(definition)

    def _check_free(self, name: str) -> None:
        """Raises ConflictError if there is a VM of that name in any root, or was in one that has ended."""
        state = self.state(name)
        if state is None or state is VmState.STOPPED:
            return
        entry = self.host.arena.vm(name)
        where = f"in root {entry.owner.root}" if entry and state is VmState.HANDED else state
        verb = f"forget {name}" if state is VmState.LOST else f"stop {name} --force"
        raise ConflictError(f"there is already a VM {name} ({where})", f"end it: multiroot vm {verb}")

    def state(self, name: str) -> VmState | None:
        """What there is to be said of the VM `name` in any root, None if there is none."""
        if name in self._allocating:
            return VmState.STARTING
        if vm := self.find(name):
            return vm.state
        if entry := self.host.arena.vm(name):
            return self.of(entry)[0]
        return VmState.STOPPED if self.homes.exists(name) else None

    def made(self, definition: VmDefinition, entry: Entry, cpu: str) -> Instance:
        """A VM for this root, which is not known yet; `cpu` is as in VmmSetup."""
        return Instance(self.host, definition, entry, self._powered_off, cpu)

    def _powered_off(self, vm: Instance) -> None:
        """Its guest needs no memory any more. What there is to tell of it stays."""
        owner = vm.word.read()
        if owner != vm.owner or owner.root != self.host.root:
            return
        try:
            self.keep_past(vm)
            self._free(vm.name, owner)
        except MultirootError as error:
            # Whoever stops it again frees it.
            log.error("the memory of %s, which has powered off: %s", vm.name, error)

    def keep_past(self, vm: Instance) -> None:
        """Have all roots know why a VM ended that is about to."""
        home = self.homes.read(vm.name)
        if home is not None:
            self.homes.write(replace(home, error=vm.error, notices=vm.notices))

    async def _acquire(self, definition: VmDefinition) -> tuple[str, ...]:
        """Addresses of the VM's own PCI functions, ready for it."""
        devices = self.host.devices
        if devices is None:
            return ()
        for vm in self._vms.values():
            for function in definition.functions if vm.active else ():
                if function in vm.definition.functions:
                    raise ConflictError(f"{function} is owned by VM {vm.name}")
        return tuple(
            [await asyncio.to_thread(devices.acquire, function) for function in definition.functions]
        )

    @property
    def here(self) -> Mapping[str, Instance]:
        """Those that were started or taken here, as they were left: nothing is looked up in the arena."""
        return self._vms

    def all(self) -> list[Instance]:
        """Every VM this root knows, by name."""
        entries = {entry.name: entry for entry in self.host.arena.vms()}
        for vm in tuple(self._vms.values()):
            self._settle(vm, entries.get(vm.name))
        return [self._vms[name] for name in sorted(self._vms)]

    def last_seen(self) -> list[Instance]:
        """As `all`, without a look, for any thread."""
        return list(self._vms.values())

    def strangers(self) -> list[Entry]:
        """VMs in the arena that this root does not know, whoever owns them."""
        known = {vm.name for vm in self.all()} | self._allocating
        return [entry for entry in self.host.arena.vms() if entry.name not in known]

    def find(self, name: str) -> Instance | None:
        """The VM called `name`, if this root knows it."""
        if vm := self._vms.get(name):
            self._settle(vm, self.host.arena.vm(name))
        return self._vms.get(name)

    def get(self, name: str) -> Instance:
        """The VM called `name`; raises BadRequestError if this root knows none."""
        vm = self.find(name)
        if vm is None:
            raise self.unknown(name)
        return vm

    def known(self, name: str) -> Instance:
        """The same; raises ConflictError that says what it is if only the arena knows it."""
        if vm := self.find(name):
            return vm
        if entry := self.host.arena.vm(name):
            state, error = self.of(entry)
            raise ConflictError(f"{name} does not run, it is {state}", error)
        if self.homes.exists(name):
            raise is_stopped(name)
        return self.get(name)

    def exists(self, name: str) -> bool:
        """Whether any root has a VM of that name."""
        return self.host.arena.vm(name) is not None

    def is_lost(self, name: str) -> bool:
        """Whether the root that owns the VM `name` has ended."""
        entry = self.host.arena.vm(name)
        return entry is not None and self.host.arena.standing(entry.owner) is Standing.LOST

    def running(self, name: str) -> Instance:
        """The same, if it runs here; raises ConflictError if it does not."""
        vm = self.live(name)
        if vm.state is VmState.PAUSED:
            raise ConflictError(f"{name} is paused", f"let it go on: multiroot vm resume {name}")
        return vm

    def live(self, name: str) -> Instance:
        """The same, if it is here and runs or is paused; raises ConflictError if not."""
        vm = self.known(name)
        if vm.state is VmState.HANDED:
            raise ConflictError(f"{name} has been handed to root {vm.owner.root}")
        if vm.is_stuck:
            raise ConflictError(
                f"the VMM of {name} does not answer", f"end it for good: `multiroot vm stop {name} --force`"
            )
        if vm.state is VmState.STOPPED:
            raise is_stopped(name)
        if vm.state not in LIVE:
            raise ConflictError(f"{name} does not run, it is {vm.state}", vm.error)
        return vm

    def owned_elsewhere(self, name: str) -> int | None:
        """The other root that owns the VM `name` and lives, by the arena; None if none does."""
        entry = self.host.arena.vm(name)
        if entry is None or self.host.arena.standing(entry.owner) is not Standing.OTHER:
            return None
        return entry.owner.root

    def of(self, entry: Entry) -> tuple[VmState, str]:
        """What a VM that does not run here is by its owner word, and the error that goes with it."""
        root = entry.owner.root
        match self.host.arena.standing(entry.owner):
            case Standing.OTHER:
                return VmState.HANDED, ""
            case Standing.LOST:
                return VmState.LOST, f"root {root}, which owned it, has ended"
            case Standing.OWN:
                return VmState.FAILED, f"root {root} owns it, and no VMM there runs it"

    def _settle(self, vm: Instance, entry: Entry | None) -> None:
        """Have a VM that does not run here be what its owner word says by now; forget one that is gone."""
        if vm.active or vm.is_busy:
            return
        if entry is None and vm.state is VmState.STOPPED and self.homes.exists(vm.name):
            return
        if entry is None or entry.record != vm.entry.record or self._is_another(vm, entry):
            self.unregister(vm)
            vm.folder.remove()
            return
        vm.owner = entry.owner
        state, error = self.of(entry)
        # One that ended here has more to tell than the word.
        if state is not VmState.FAILED or vm.state in (VmState.HANDED, VmState.LOST):
            vm.state, vm.error = state, error

    def seen(self, mac: str, address: str) -> None:
        """Whoever has the card `mac` uses this IPv4 address."""
        for vm in self._vms.values():
            vm.seen(mac, address)

    def _is_another(self, vm: Instance, entry: Entry) -> bool:
        """Whether the VM of that name was started anew since this one powered off."""
        return vm.state is VmState.STOPPED and entry.owner.epoch > vm.owner.epoch

    @unbroken
    async def stop(self, name: str) -> None:
        """Power a VM off at once and give its memory back; only its definition is left, if it has one.

        Also for VMs whose VMM is gone, as long as this root owns their memory or nobody does any more. Raises
        BadRequestError for an unknown name, ConflictError if another root that lives owns it.
        """
        check_name(name)
        vm = self.find(name)
        if vm is None or vm.state in (VmState.HANDED, VmState.LOST):
            await self._free_orphan(name)
            return
        with vm.busy("stopped"):
            freed = vm.state is VmState.STOPPED and self.host.arena.vm(name) is None
            await vm.end(VmState.STOPPED)
            if not freed:
                self.keep_past(vm)
                self._free(name, vm.owner)
            self.unregister(vm)
            await vm.discard()

    @unbroken
    async def forget(self, name: str) -> None:
        """Free the memory of a VM that was lost with its root; only its definition is left, if it has one.

        Raises BadRequestError for an unknown name, ConflictError if the root that owns it lives.
        """
        check_name(name)
        entry = self._entry(name)
        if self.host.arena.standing(entry.owner) is not Standing.LOST:
            raise ConflictError(
                f"{name} is not lost: root {entry.owner.root}, which owns it, lives",
                f"end it: multiroot vm stop {name} --force",
            )
        await self._free_orphan(name)

    def register(self, vm: Instance) -> None:
        """Know this VM from now on by its name."""
        self._vms[vm.name] = vm

    def unregister(self, vm: Instance) -> None:
        """Forget it, if it is still the one of that name."""
        if self._vms.get(vm.name) is vm:
            del self._vms[vm.name]

    async def adopt(self) -> None:
        """Find the VMs that an earlier agent of this root left, and bring each to a state that is safe."""
        await left_over.adopt(self)

    async def _free_orphan(self, name: str) -> None:
        """Free a VM that runs nowhere: its VMM or its root is gone."""
        entry = self._entry(name)
        standing = self.host.arena.standing(entry.owner)
        if standing is Standing.LOST and self.host.devices is not None:
            # A device that the VM owned outlives its root. It must not write to what becomes another VM's.
            await asyncio.to_thread(self.host.devices.stop_ended)
        if standing is Standing.OTHER:
            root = entry.owner.root
            raise ConflictError(
                f"{name} is owned by root {root}",
                f"end it there: multiroot vm stop {name} --force --root {root}",
            )
        if (home := self.homes.read(name)) and standing is Standing.LOST:
            self.homes.write(replace(home, error=self.of(entry)[1]))
        self._free(name, entry.owner)
        # What is known of it here goes with it.
        self.find(name)

    def _free(self, name: str, owner: Owner) -> None:
        """Give a VM's memory back, and its disks, which it has as long as it has memory."""
        self.host.arena.free(name, owner)
        claims.release(self.host.arena, name)

    def _entry(self, name: str) -> Entry:
        entry = None if name in self._allocating else self.host.arena.vm(name)
        if entry is None:
            raise self.unknown(name)
        return entry

    def unknown(self, name: str) -> MultirootError:
        """The error for a name that no VM has, or one that has no memory yet."""
        if name in self._allocating:
            return ConflictError(
                f"{name} is just being started", f"see when it runs: multiroot vm show {name}"
            )
        running = (entry.name for entry in self.host.arena.vms())
        names = sorted({*self._vms, *running, *self.homes.names()})
        hint = f"there are: {', '.join(names)}" if names else "there are none"
        return BadRequestError(f"no VM named {name!r}", hint)

    def owner(self, vm: Instance) -> Owner:
        """Who owns it now, as the arena says for a VM that is here, as last known for one handed on."""
        return vm.word.read() if vm.active else vm.owner


def is_stopped(name: str) -> ConflictError:
    """The error for what a VM would have to run for."""
    return ConflictError(f"{name} does not run, it is stopped", f"start it: multiroot vm start {name}")
