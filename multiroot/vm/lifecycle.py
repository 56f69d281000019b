# SPDX-License-Identifier: GPL-2.0-or-later
"""What users do with their VMs: a VM is defined, starts, stops and starts again, in this root or another.

Its definition is in its home (`home`), and says nothing of roots. A VM that is stopped has nothing else: no
memory, no process and no owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from multiroot.errors import BadRequestError, ConflictError, WaitTimeoutError
from multiroot.vm.definition import VmDefinition, check_name, shared_address
from multiroot.vm.home import Home
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.unbroken import unbroken
from multiroot.vm.vmm import VmmGoneError

POWER_OFF_S = 60  # a guest may take so long, unless told otherwise


class Lifecycle:
    """The VMs of this root and those that no root has.

    All that is asked for raises BadRequestError for a name that no VM has, and ConflictError, having changed
    nothing, where the VM's state or another operation is in the way.
    """

    def __init__(self, manager: VmManager) -> None:
        self._manager = manager
        self._homes = manager.homes
        self._files = manager.host.files

    @unbroken
    async def define(self, definition: VmDefinition) -> None:
        """Have a new VM, which is stopped."""
        definition = definition.checked()
        try:
            self._check_new(definition.name)
            await asyncio.to_thread(self._check_cards, definition)
            await self._manager.check(definition)
            await asyncio.to_thread(self._homes.make, Home(definition))
            await asyncio.to_thread(self._keep_files, definition)
        except BaseException:
            self._files.settle(definition)
            await self._sweep()
            raise
        self._files.settle(definition)

    def _keep_files(self, definition: VmDefinition) -> None:
        """From now on nobody takes them away, but until now another VM's end could."""
        try:
            self._files.check(definition)
        except BadRequestError:
            self._homes.remove(definition.name, lambda: self._check_unused(definition.name))
            raise

    async def keep_file(self, name: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """Keep a file for VMs that are about to be defined; if that fails, none that was sent for them."""
        try:
            with await asyncio.to_thread(self._files.receive, name, size) as file:
                async for data in pieces:
                    file.add(data)
                file.finish()
        except BaseException:
            self._files.settle_all()
            await self._sweep()
            raise

    async def _sweep(self) -> None:
        """Forget the files that no VM needs any more."""
        await asyncio.to_thread(self._files.sweep, self._homes.files)

    @unbroken
    async def run(self, definition: VmDefinition) -> Instance:
        """Have a new VM and start it; there is none if it does not start."""
        await self.define(definition)
        name = definition.name
        try:
            return await self.start(name)
        except BaseException:
            # Whoever was so quick to start or remove it meanwhile may have it.
            with suppress(BadRequestError, ConflictError):
                self._homes.remove(name, lambda: self._check_unused(name))
            await self._sweep()
            raise

    @unbroken
    async def start(self, name: str) -> Instance:
        """Start a VM that is stopped, or has failed, in this root."""
        state = self._state(name)
        definition = self._home(name).definition
        if state is VmState.FAILED or (state is VmState.STOPPED and self._manager.host.arena.vm(name)):
            await self._manager.stop(name)
        elif state is not VmState.STOPPED:
            raise self._is_there(name, state)

        def settled(as_it_runs: VmDefinition) -> None:
            home = self._home(name)
            if home.definition != definition:
                raise ConflictError(f"{name} was just changed", f"once more: multiroot vm start {name}")
            if as_it_runs != definition:
                self._homes.write(replace(home, definition=as_it_runs))

        return await self._manager.run(definition, settled)

    @unbroken
    async def edit(self, definition: VmDefinition) -> None:
        """Have a stopped VM be another one from its next start on."""
        definition = definition.checked()
        try:
            await self._edit(definition)
        finally:
            # Those of the VM as it was, or those that were sent in vain.
            self._files.settle(definition)
            await self._sweep()

    async def _edit(self, definition: VmDefinition) -> None:
        name = definition.name
        if (state := self._state(name)) is not VmState.STOPPED:
            raise ConflictError(f"{name} is {state}", f"stop it first: multiroot vm stop {name}")
        await asyncio.to_thread(self._check_cards, definition)
        await self._manager.check(definition)
        home = replace(self._home(name), definition=definition)

        def check() -> None:
            self._check_unused(name)
            self._files.check(definition)

        await asyncio.to_thread(self._homes.write, home, check)

    def _check_cards(self, definition: VmDefinition) -> None:
        """Raises ConflictError if another VM has an address of one of its cards: both would be deaf."""
        for other in self._homes.names():
            home = self._homes.read(other) if other != definition.name else None
            if home and (both := shared_address(definition, home.definition)):
                raise ConflictError(
                    f"the VM {other} has the address {both}, too", f"see `multiroot vm show {other}`"
                )

    @unbroken
    async def remove(self, name: str, *, force: bool = False) -> None:
        """Forget a VM that is stopped; with `force` one that is not is powered off at once."""
        state = self._state(name)
        if state is not VmState.STOPPED or self._manager.host.arena.vm(name):
            if not force:
                raise ConflictError(
                    f"{name} is {state}", f"power it off and remove it: multiroot vm rm {name} --force"
                )
            await self._manager.stop(name)
        if self._homes.exists(name):
            self._homes.remove(name, lambda: self._check_unused(name))
            await self._sweep()
        # What is known of it here goes with it.
        self._manager.find(name)

    async def stop(self, name: str, *, force: bool = False, timeout_s: float | None = None) -> None:
        """Have the guest power itself off, and wait for that; nothing to do if it is stopped.

        With `force` it is powered off at once, or after `timeout_s` if that is given. So is what has no guest
        to be asked any more. Raises WaitTimeoutError.
        """
        state = self._state(name)
        if state is VmState.STOPPED and self._manager.host.arena.vm(name) is None:
            return
        at_once = force and not timeout_s
        if at_once or state in (VmState.STOPPED, VmState.FAILED, VmState.LOST, VmState.HANDED):
            await self._manager.stop(name)
            return
        try:
            await self._power_off(name, POWER_OFF_S if timeout_s is None else timeout_s)
        except (ConflictError, WaitTimeoutError):
            if not force:
                raise
            await self._manager.stop(name)

    async def _power_off(self, name: str, timeout_s: float) -> None:
        by_force = f"multiroot vm stop {name} --force"
        vm = self._manager.live(name)
        if vm.paused:
            raise ConflictError(f"{name} is paused and hears no power button", f"power it off: {by_force}")
        # One that has powered off before it could answer is what was wished for.
        with vm.busy("stopped"), suppress(VmmGoneError):
            await vm.vmm.press_power()
        try:
            # Not busy meanwhile: it can go to another root as ever, and stops there.
            await asyncio.wait_for(vm.ended(), timeout_s)
        except TimeoutError as error:
            raise WaitTimeoutError(
                f"{name} has not powered off within {timeout_s:g} s after its power button was pressed",
                f"power it off: {by_force}",
            ) from error
        if vm.state is VmState.HANDED:
            where = f"root {vm.owner.root}"
            raise ConflictError(
                f"{name} went to {where} after its power button was pressed", f"multiroot vm stop {name}"
            )
        if vm.state is VmState.FAILED:
            await self._manager.stop(name)

    @unbroken
    async def reboot(self, name: str, timeout_s: float | None = None) -> Instance:
        """Have the guest power itself off, and start it again; raises what `stop` and `start` raise."""
        self._manager.running(name)
        self._home(name)
        self._manager.door.check()
        await self.stop(name, timeout_s=timeout_s)
        return await self.start(name)

    @unbroken
    async def reset(self, name: str) -> None:
        """Reset the machine of a VM that runs here, as its reset button does."""
        vm = self._manager.running(name)
        with vm.busy("reset"):
            await vm.vmm.reset()

    async def pause(self, name: str) -> Instance:
        """Have the guest of a VM here stand still until it is resumed, wherever the VM goes."""
        return await self._set_paused(name, True)

    async def resume(self, name: str) -> Instance:
        """Have it go on."""
        return await self._set_paused(name, False)

    @unbroken
    async def _set_paused(self, name: str, paused: bool) -> Instance:
        vm = self._manager.live(name)
        with vm.busy("paused" if paused else "resumed"):
            await vm.set_paused(paused)
        return vm

    def _state(self, name: str) -> VmState:
        check_name(name)
        state = self._manager.state(name)
        if state is None:
            raise self._manager.unknown(name)
        return state

    def _home(self, name: str) -> Home:
        home = self._homes.read(name)
        if home is not None:
            return home
        if self._homes.exists(name):
            raise ConflictError(
                f"what the arena keeps of {name} cannot be read", f"forget it: multiroot vm rm {name}"
            )
        raise ConflictError(f"{name} is not defined, it only runs", f"see `multiroot vm show {name}`")

    def _check_new(self, name: str) -> None:
        check_name(name)
        state = self._manager.state(name)
        if state is VmState.STOPPED:
            raise ConflictError(f"there is already a VM {name} (stopped)", f"multiroot vm start {name}")
        if state is not None:
            raise self._is_there(name, state)

    def _is_there(self, name: str, state: VmState) -> ConflictError:
        entry = self._manager.host.arena.vm(name)
        where = f"in root {entry.owner.root}" if entry and state is VmState.HANDED else state
        hints = {
            VmState.LOST: f"free its memory: multiroot vm forget {name}",
            VmState.PAUSED: f"let it go on: multiroot vm resume {name}",
            VmState.FAILED: f"start it again: multiroot vm start {name}",
        }
        hint = hints.get(state, f"look at it: multiroot vm show {name}")
        return ConflictError(f"there is already a VM {name} ({where})", hint)

    def _check_unused(self, name: str) -> None:
        if self._manager.host.arena.vm(name) is not None:
            raise ConflictError(f"{name} was just started", f"stop it first: multiroot vm stop {name}")
