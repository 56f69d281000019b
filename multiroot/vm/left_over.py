# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that an earlier agent of this root left running, or in the middle of a handoff."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from multiroot.arena.errors import FencedError
from multiroot.errors import ConflictError, MultirootError
from multiroot.processes import ProcessId, logging_to
from multiroot.vm.folder import VmFolder, VmRecord, folders
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.process import Process
from multiroot.vm.vmm import VmmGoneError

if TYPE_CHECKING:
    from multiroot.vm.manager import VmManager

log = logging.getLogger(__name__)


async def adopt(manager: VmManager) -> None:
    """Find the VMs that an earlier agent of this root left, and bring each to a state that is safe.

    The owner word decides: what another root owns is ended here, what this root owns goes on. That also
    settles a handoff during which the agent died, on either side of it.
    """
    for name in folders(manager.host.run_dir):
        try:
            await _adopt(manager, name)
        except MultirootError as error:
            log.error("cannot adopt VM %s: %s", name, error)


async def _adopt(manager: VmManager, name: str) -> None:
    folder = VmFolder(manager.host.run_dir, name)
    record = folder.read()
    entry = manager.host.arena.vm(name)
    if record is None or entry is None or entry.record.definition != record.definition.checksum():
        # Without a record that agent died while it started the VMM, whose output goes to the VM's log.
        for process in logging_to(folder.vmm_log) if record is None else [record.process]:
            await _kill(process)
        folder.remove()
        return
    vm = manager.made(record.definition, entry, record.cpu)
    if entry.owner.root != manager.host.root:
        await _adopt_foreign(manager, vm, record)
        return
    # One that does not answer must not keep this agent, and with it all other VMs, from going on.
    if not await vm.patiently(lambda: _take_over(manager, vm, record)):
        vm.state = VmState.FROZEN
        manager.register(vm)


async def _take_over(manager: VmManager, vm: Instance, record: VmRecord) -> None:
    """Go on with an earlier agent's VMM, if this root still owns the VM when it answers."""
    try:
        await vm.adopt(record)
    except (ConflictError, VmmGoneError) as error:
        if vm.active:
            vm.state, vm.error = VmState.FAILED, str(error)
            manager.register(vm)
        return
    try:
        # The new epoch fences the taker of a handoff that was cut short.
        vm.owner = vm.word.take(vm.owner, manager.host.root)
    except FencedError:
        # The taker was faster.
        await vm.end(VmState.HANDED)
        await _adopt_foreign(manager, vm, record)
        return
    await vm.insist(lambda: _let_go_on(vm))
    manager.register(vm)


async def _adopt_foreign(manager: VmManager, vm: Instance, record: VmRecord) -> None:
    """Another root owns it: whatever runs here must not."""
    await _kill(record.process)
    if record.giver is not None:
        manager.unregister(vm)
        vm.folder.remove()
        return
    vm.state = VmState.HANDED
    manager.register(vm)


async def _let_go_on(vm: Instance) -> None:
    """Give up a handoff that was cut short, and let the guest run here."""
    await vm.vmm.cancel()
    await vm.resume()
    vm.keep()


async def _kill(process: ProcessId) -> None:
    try:
        await Process(process).kill()
    except ConflictError:
        # It has ended.
        return
