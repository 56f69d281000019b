# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs as a root tells them to those who watch: by the owner words, with what its own are doing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vm.conftest import SMALL

from multiroot.arena.arena import Arena
from multiroot.arena.layout import CANARY, Owner
from multiroot.vm.home import Home
from multiroot.vm.host import Host
from multiroot.vm.instance import VmState
from multiroot.vm.manager import VmManager
from multiroot.watch.facts import ExtentFacts
from multiroot.watch.vm_look import VmLook

PHYSICAL = 1 << 32


@pytest.fixture
def look(manager: VmManager) -> VmLook:
    return VmLook(manager, PHYSICAL)


async def test_a_vm_from_its_start_to_its_end(manager: VmManager, look: VmLook) -> None:
    assert look.vms() == {}
    vm = await manager.run(SMALL)
    seen = look.vms()["vm0"]
    assert (seen.state, seen.owner, seen.epoch) == ("running", 1, vm.owner.epoch)
    assert seen.extents == [ExtentFacts(PHYSICAL + vm.entry.extent.offset, vm.entry.extent.size)]
    assert (seen.cpus, seen.guest) == (SMALL.cpus, "tiny")
    vm.state = VmState.FROZEN
    assert look.vms()["vm0"].state == "frozen"
    vm.state = VmState.RUNNING
    await manager.stop("vm0")
    assert look.vms() == {}


async def test_the_owner_word_is_read_each_time(manager: VmManager, look: VmLook) -> None:
    vm = await manager.run(SMALL)
    look.vms()
    there = vm.word.take(vm.owner, 2)
    seen = look.vms()["vm0"]
    # Its VMM is still here; who owns it says the word.
    assert (seen.owner, seen.epoch, seen.state) == (2, there.epoch, "running")
    await vm.end(VmState.HANDED)
    assert look.vms()["vm0"].state == "handed"
    vm.word.take(there, 1)


async def test_vms_of_other_roots_stopped_ones_and_no_canary(
    manager: VmManager, host: Host, look: VmLook
) -> None:
    other = Arena(host.arena.path, 2)
    try:
        entry = other.allocate("theirs", SMALL.ram_bytes, 7)
        canary = other.allocate(CANARY, SMALL.ram_bytes, 7)
        manager.homes.make(Home(replace(SMALL, name="asleep"), error="it powered off"))
        seen = look.vms()
        assert {name: vm.state for name, vm in seen.items()} == {"theirs": "handed", "asleep": "stopped"}
        assert seen["theirs"].owner == 2
        assert (seen["asleep"].owner, seen["asleep"].error) == (0, "it powered off")
        # Ours by the word, and nothing runs it here.
        other.take("theirs", entry.owner, 1)
        assert look.vms()["theirs"].state == "failed"
        other.free("theirs", Owner(1, entry.owner.epoch + 1))
        other.free(CANARY, canary.owner)
        assert list(look.vms()) == ["asleep"]
    finally:
        other.close()


async def test_whoever_watches_is_rung_when_a_state_changes(manager: VmManager) -> None:
    rings: list[int] = []
    manager.host = replace(manager.host, changed=lambda: rings.append(1))
    vm = await manager.run(SMALL)
    before = len(rings)
    assert before
    vm.state = VmState.PAUSED
    assert len(rings) == before + 1
    vm.state = VmState.RUNNING
