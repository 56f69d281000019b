# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this root, by name."""

from __future__ import annotations

import asyncio
import logging

from multiroot.arena.arena import Entry
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.vm.definition import VmDefinition, check_name
from multiroot.vm.folder import VmFolder, VmRecord, folders
from multiroot.vm.instance import Host, Instance, VmState
from multiroot.vm.process import Process
from multiroot.vm.vmm import VmmGoneError

log = logging.getLogger(__name__)


class VmManager:
    """Runs, finds and ends VMs; `adopt` finds the VMs that an earlier agent of this root left running."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._vms: dict[str, Instance] = {}

    async def run(self, definition: VmDefinition) -> Instance:
        """Start a new VM in an extent of its own and return once the guest runs.

        Raises BadRequestError or ConflictError, having changed nothing, for a definition that cannot be run
        here.
        """
        definition = definition.checked()
        self.host.check(definition)
        known = self._vms.get(definition.name)
        if known and known.state is not VmState.HANDED:
            raise ConflictError(
                f"there is already a VM {known.name} ({known.state})",
                f"end it: multiroot vm stop {known.name}",
            )
        functions = await self._acquire(definition)
        # Zeroing a large extent takes seconds; the agent has other things to answer meanwhile.
        entry = await asyncio.to_thread(
            self.host.arena.allocate, definition.name, definition.ram_bytes, definition.checksum()
        )
        vm = Instance(self.host, definition, entry)
        vm.functions = functions
        self._vms[vm.name] = vm
        try:
            with vm.busy("started"):
                await vm.start()
        except BaseException:
            del self._vms[vm.name]
            self.host.arena.free(vm.name, vm.owner)
            raise
        return vm

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
        return [self._vms[name] for name in sorted(self._vms)]

    def get(self, name: str) -> Instance:
        """The VM called `name`; raises BadRequestError if this root knows none."""
        vm = self._vms.get(name)
        if vm is None:
            raise BadRequestError(f"no VM named {name!r} in root {self.host.root}", self._known())
        return vm

    def running(self, name: str) -> Instance:
        """The same, if it runs here; raises ConflictError if it does not."""
        vm = self.get(name)
        if vm.state is VmState.HANDED:
            raise ConflictError(f"{name} has been handed to root {vm.owner.root}")
        if vm.state is not VmState.RUNNING:
            raise ConflictError(f"{name} does not run, it is {vm.state}", vm.error)
        return vm

    async def stop(self, name: str) -> None:
        """Power a VM off at once, give its memory back and forget it.

        Also for VMs whose VMM is gone, as long as this root owns their memory. Raises BadRequestError for an
        unknown name, ConflictError if another root owns it.
        """
        check_name(name)
        vm = self._vms.get(name)
        if vm is None or vm.state is VmState.HANDED:
            self._free_orphan(name)
            return
        with vm.busy("stopped"):
            await vm.end(VmState.STOPPED)
            self.host.arena.free(name, vm.owner)
            self.unregister(vm)
            await vm.discard()

    def find(self, name: str) -> Instance | None:
        """The VM called `name`, if this root knows it."""
        return self._vms.get(name)

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
        entry = next((entry for entry in self.host.arena.vms() if entry.name == name), None)
        if record is None or entry is None or entry.record.definition != record.definition.checksum():
            if record is not None and record.process.alive():
                await _kill(record)
            folder.remove()
            return
        vm = Instance(self.host, record.definition, entry)
        if entry.owner.root != self.host.root:
            await self._adopt_foreign(vm, record)
            return
        try:
            await vm.adopt(record)
        except (ConflictError, VmmGoneError) as error:
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
        await self._let_go_on(vm)
        self.register(vm)

    async def _adopt_foreign(self, vm: Instance, record: VmRecord) -> None:
        """Another root owns it: whatever runs here must not."""
        if record.process.alive():
            await _kill(record)
        if record.giver is not None:
            vm.folder.remove()
            return
        vm.state = VmState.HANDED
        self.register(vm)

    async def _let_go_on(self, vm: Instance) -> None:
        """Give up a handoff that was cut short, and let the guest run here."""
        await vm.vmm.cancel()
        await vm.resume()
        vm.keep()

    def _free_orphan(self, name: str) -> None:
        entry = self._entry(name)
        if entry.owner.root != self.host.root:
            raise ConflictError(f"{name} is owned by root {entry.owner.root}", "stop it there")
        self.host.arena.free(name, entry.owner)

    def _entry(self, name: str) -> Entry:
        for entry in self.host.arena.vms():
            if entry.name == name:
                return entry
        raise BadRequestError(f"no VM named {name!r}", self._known())

    def _known(self) -> str:
        return f"there are: {', '.join(sorted(self._vms))}" if self._vms else "there are none"

    def owner(self, vm: Instance) -> Owner:
        """Who owns it now, as the arena says for a VM that is here, as last known for one handed on."""
        return vm.word.read() if vm.active else vm.owner


async def _kill(record: VmRecord) -> None:
    try:
        await Process(record.process).kill()
    except ConflictError:
        # It ended in between.
        return
