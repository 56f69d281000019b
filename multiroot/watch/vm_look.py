# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs as one root knows them: owner words of the arena, and what its own VMs are doing."""

from __future__ import annotations

from multiroot.arena.arena import Arena, Entry, OwnerWord
from multiroot.arena.layout import CANARY, Owner
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.watch.facts import ExtentFacts, NoticeFacts, VmFacts

NOTICES = 8  # are told, the newest
STOPPED_EVERY = 10  # looks: a definition may change, and no word of the arena tells of it


class ArenaLook:
    """The arena's VMs. The table is read when it has changed, an owner word each time."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._generation = -1
        self._words: list[tuple[Entry, OwnerWord]] = []

    def changed(self) -> bool:
        """Read the table if it has changed since the last call, and say so."""
        generation = self._arena.generation
        if generation == self._generation:
            return False
        entries = [entry for entry in self._arena.entries() if entry.is_vm]
        self._words = [(entry, OwnerWord(self._arena.memory, entry)) for entry in entries]
        self._generation = generation
        return True

    def owners(self) -> list[tuple[Entry, Owner]]:
        """Each VM's entry, and who owns it now; not those that are being freed."""
        read = [(entry, word.read()) for entry, word in self._words]
        return [(entry, owner) for entry, owner in read if owner.root]


class VmLook:
    """All VMs but an update's canary, by name. A VM that another root owns is "handed" here."""

    def __init__(self, manager: VmManager, physical: int) -> None:
        """`physical` is where the arena begins."""
        self._manager = manager
        self._root = manager.host.root
        self._arena = ArenaLook(manager.host.arena)
        self._physical = physical
        self._stopped: dict[str, VmFacts] = {}
        self._looks = 0

    def vms(self) -> dict[str, VmFacts]:
        """What is known now."""
        here = self._manager.here
        changed = self._arena.changed()
        owned = self._arena.owners()
        found = {
            entry.name: self._running(entry, owner, here.get(entry.name))
            for entry, owner in owned
            if entry.name != CANARY
        }
        self._looks += 1
        if changed or self._looks % STOPPED_EVERY == 1:
            self._stopped = self._look_at_homes({entry.name for entry, _ in owned})
        return found | {name: vm for name, vm in self._stopped.items() if name not in found}

    def _running(self, entry: Entry, owner: Owner, vm: Instance | None) -> VmFacts:
        facts = VmFacts(
            state=self._state(owner, vm).value,
            owner=owner.root,
            epoch=owner.epoch,
            memory_bytes=entry.extent.size,
            extents=[ExtentFacts(self._physical + entry.extent.offset, entry.extent.size)],
        )
        if vm is not None:
            definition = vm.definition
            facts.cpus, facts.guest = definition.cpus, definition.guest
            facts.functions = list(definition.functions)
            fixed = [card.address.partition("/")[0] for card in definition.cards if card.address]
            facts.addresses = list(dict.fromkeys([*fixed, *vm.stations.values()]))
            facts.notices = [NoticeFacts(each.at_ns, each.what) for each in vm.notices[-NOTICES:]]
            facts.error = vm.error
        return facts

    def _state(self, owner: Owner, vm: Instance | None) -> VmState:
        if vm is not None and vm.active:
            return vm.state
        if owner.root != self._root:
            return VmState.HANDED
        # One that has ended by itself knows more than the word.
        return vm.state if vm is not None and vm.state is VmState.STOPPED else VmState.FAILED

    def _look_at_homes(self, owned: set[str]) -> dict[str, VmFacts]:
        homes = self._manager.homes
        found = {}
        for name in homes.names():
            home = None if name in owned else homes.read(name)
            if home is not None:
                told = home.definition
                found[name] = VmFacts(
                    state=VmState.STOPPED.value,
                    memory_bytes=told.ram_bytes,
                    cpus=told.cpus,
                    guest=told.guest,
                    functions=list(told.functions),
                    error=home.error,
                )
        return found
