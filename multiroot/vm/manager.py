# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this root, by name."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from multiroot.arena.arena import Entry, Standing
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.processes import ProcessId, logging_to
from multiroot.vm import claims
from multiroot.vm.definition import VmDefinition, check_name
from multiroot.vm.door import Door
from multiroot.vm.folder import VmFolder, VmRecord, folders
from multiroot.vm.guests import GuestImage, check_ram_for
from multiroot.vm.instance import Host, Instance, VmState
from multiroot.vm.process import Process
from multiroot.vm.vmm import VmmGoneError

log = logging.getLogger(__name__)


class VmManager:
    """Runs, finds and ends VMs; `adopt` finds the VMs that an earlier agent of this root left running."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.door = Door(host.root)
        self._vms: dict[str, Instance] = {}
        self._allocating: set[str] = set()

    async def run(self, definition: VmDefinition) -> Instance:
        """Start a new VM in an extent of its own and return once the guest runs.

        Raises BadRequestError or ConflictError, having changed nothing, for a definition that cannot be run
        here.
        """
        self.door.check()
        definition = definition.checked()
        self.host.check(definition)
        image = GuestImage.of(self.host.guests, definition.guest)
        if not definition.boots_a_disk:
            await asyncio.to_thread(check_ram_for, image, definition.ram_bytes)
        if definition.disks:
            await asyncio.to_thread(self.host.check_disks, definition)
        self._check_free(definition.name)
        self._allocating.add(definition.name)
        try:
            # From here on it means the same in every root.
            definition = replace(definition, cpu=await self.host.vmm.written_out(definition.cpu))
            functions = await self._acquire(definition)
            # Zeroing a large extent takes seconds; the agent has other things to answer meanwhile.
            entry = await asyncio.to_thread(
                self.host.arena.allocate, definition.name, definition.ram_bytes, definition.checksum()
            )
        finally:
            self._allocating.discard(definition.name)
        vm = Instance(self.host, definition, entry)
        vm.functions = functions
        self._vms[vm.name] = vm
        try:
            await asyncio.to_thread(claims.claim, self.host.arena, vm.name, definition.disks)
            self.door.check()
            with vm.busy("started"):
                await vm.start()
        except BaseException:
            del self._vms[vm.name]
            self._free(vm.name, vm.owner)
            raise
        return vm

    def _check_free(self, name: str) -> None:
        """Raises ConflictError if there is a VM of that name in any root, or was in one that has ended."""
        vm, entry = self.find(name), self.host.arena.vm(name)
        if name in self._allocating:
            state = VmState.STARTING
        elif vm is not None:
            state = vm.state
        elif entry is not None:
            state = self.of(entry)[0]
        else:
            return
        where = f"in root {entry.owner.root}" if entry and state is VmState.HANDED else state
        verb = "forget" if state is VmState.LOST else "stop"
        raise ConflictError(f"there is already a VM {name} ({where})", f"end it: multiroot vm {verb} {name}")

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

    def all(self) -> list[Instance]:
        """Every VM this root knows, by name."""
        entries = {entry.name: entry for entry in self.host.arena.vms()}
        for vm in tuple(self._vms.values()):
            self._settle(vm, entries.get(vm.name))
        return [self._vms[name] for name in sorted(self._vms)]

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
            raise self._unknown(name)
        return vm

    def known(self, name: str) -> Instance:
        """The same; raises ConflictError that says what it is if only the arena knows it."""
        entry = None if self.find(name) else self.host.arena.vm(name)
        if entry is not None:
            state, error = self.of(entry)
            raise ConflictError(f"{name} does not run, it is {state}", error)
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
        vm = self.known(name)
        if vm.state is VmState.HANDED:
            raise ConflictError(f"{name} has been handed to root {vm.owner.root}")
        if vm.is_stuck:
            raise ConflictError(
                f"the VMM of {name} does not answer", f"end it for good: `multiroot vm stop {name}`"
            )
        if vm.state is not VmState.RUNNING:
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
        if entry is None or entry.record != vm.entry.record:
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
            if any(card.mac == mac for card in vm.definition.cards):
                vm.seen(mac, address)

    async def stop(self, name: str) -> None:
        """Power a VM off at once, give its memory back and forget it.

        Also for VMs whose VMM is gone, as long as this root owns their memory or nobody does any more. Raises
        BadRequestError for an unknown name, ConflictError if another root that lives owns it.
        """
        check_name(name)
        vm = self.find(name)
        if vm is None or vm.state in (VmState.HANDED, VmState.LOST):
            await self._free_orphan(name)
            return
        with vm.busy("stopped"):
            await vm.end(VmState.STOPPED)
            self._free(name, vm.owner)
            self.unregister(vm)
            await vm.discard()

    async def reset(self, name: str) -> None:
        """Reset the machine of a VM that runs here, as its reset button does.

        Raises BadRequestError for an unknown name, ConflictError for a VM that does not run here.
        """
        vm = self.running(name)
        with vm.busy("reset"):
            await vm.vmm.reset()

    async def forget(self, name: str) -> None:
        """Free the memory and the name of a VM that was lost with its root.

        Raises BadRequestError for an unknown name, ConflictError if the root that owns it lives.
        """
        check_name(name)
        entry = self._entry(name)
        if self.host.arena.standing(entry.owner) is not Standing.LOST:
            raise ConflictError(
                f"{name} is not lost: root {entry.owner.root}, which owns it, lives",
                f"end it: multiroot vm stop {name}",
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
        """Find the VMs that an earlier agent of this root left, and bring each to a state that is safe.

        The owner word decides: what another root owns is ended here, what this root owns goes on. That also
        settles a handoff during which the agent died, on either side of it.
        """
        for name in folders(self.host.run_dir):
            try:
                await self._adopt(name)
            except MultirootError as error:
                log.error("cannot adopt VM %s: %s", name, error)

    async def _adopt(self, name: str) -> None:
        folder = VmFolder(self.host.run_dir, name)
        record = folder.read()
        entry = self.host.arena.vm(name)
        if record is None or entry is None or entry.record.definition != record.definition.checksum():
            # Without a record that agent died while it started the VMM, whose output goes to the VM's log.
            for process in logging_to(folder.vmm_log) if record is None else [record.process]:
                await _kill(process)
            folder.remove()
            return
        vm = Instance(self.host, record.definition, entry)
        if entry.owner.root != self.host.root:
            await self._adopt_foreign(vm, record)
            return
        # One that does not answer must not keep this agent, and with it all other VMs, from going on.
        if not await vm.patiently(lambda: self._take_over(vm, record)):
            vm.state = VmState.FROZEN
            self.register(vm)

    async def _take_over(self, vm: Instance, record: VmRecord) -> None:
        """Go on with an earlier agent's VMM, if this root still owns the VM when it answers."""
        try:
            await vm.adopt(record)
        except (ConflictError, VmmGoneError) as error:
            if vm.active:
                vm.state, vm.error = VmState.FAILED, str(error)
                self.register(vm)
            return
        try:
            # The new epoch fences the taker of a handoff that was cut short.
            vm.owner = vm.word.take(vm.owner, self.host.root)
        except FencedError:
            # The taker was faster.
            await vm.end(VmState.HANDED)
            await self._adopt_foreign(vm, record)
            return
        await vm.insist(lambda: self._let_go_on(vm))
        self.register(vm)

    async def _adopt_foreign(self, vm: Instance, record: VmRecord) -> None:
        """Another root owns it: whatever runs here must not."""
        await _kill(record.process)
        if record.giver is not None:
            self.unregister(vm)
            vm.folder.remove()
            return
        vm.state = VmState.HANDED
        self.register(vm)

    async def _let_go_on(self, vm: Instance) -> None:
        """Give up a handoff that was cut short, and let the guest run here."""
        await vm.vmm.cancel()
        await vm.resume()
        vm.keep()

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
                f"{name} is owned by root {root}", f"end it there: multiroot vm stop {name} --root {root}"
            )
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
            raise self._unknown(name)
        return entry

    def _unknown(self, name: str) -> BadRequestError:
        names = sorted({*self._vms, *(entry.name for entry in self.host.arena.vms())})
        hint = f"there are: {', '.join(names)}" if names else "there are none"
        return BadRequestError(f"no VM named {name!r}", hint)

    def owner(self, vm: Instance) -> Owner:
        """Who owns it now, as the arena says for a VM that is here, as last known for one handed on."""
        return vm.word.read() if vm.active else vm.owner


async def _kill(process: ProcessId) -> None:
    try:
        await Process(process).kill()
    except ConflictError:
        # It has ended.
        return
