# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that is defined, starts, stops, stands still and goes on, and is changed, with one root alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vm.conftest import SMALL, SetFaults, power_off, qmp_of

from multiroot.arena.arena import Arena
from multiroot.errors import BadRequestError, CommandError, ConflictError, WaitTimeoutError
from multiroot.units import MIB
from multiroot.vm import home
from multiroot.vm.definition import Card
from multiroot.vm.disk import Disk
from multiroot.vm.folder import folders
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.manager import VmManager
from multiroot.vm.pmem import Pmem
from multiroot.vm.stream import wait_for_ticks

HOME = f"{home.PREFIX}vm0"


@pytest.fixture
def life(manager: VmManager) -> Lifecycle:
    return Lifecycle(manager)


def extents(host: Host) -> list[str]:
    return [entry.name for entry in host.arena.entries()]


def counter(vm: Instance) -> int:
    """How far the guest has counted, in its own RAM."""
    with vm.host.arena.mapped(vm.entry.extent) as memory:
        return int.from_bytes(memory[:8], "little")


async def test_a_life(host: Host, manager: VmManager, life: Lifecycle) -> None:
    await life.define(SMALL)
    assert (extents(host), manager.state("vm0")) == ([HOME], VmState.STOPPED)
    vm = await life.start("vm0")
    assert (vm.state, extents(host)) == (VmState.RUNNING, [HOME, "vm0"])
    await wait_for_ticks(vm, 3)
    await life.stop("vm0", timeout_s=20)
    assert (extents(host), manager.state("vm0")) == ([HOME], VmState.STOPPED)
    await life.stop("vm0")  # it is
    await life.edit(replace(SMALL, ram_bytes=64 * MIB))
    vm = await life.start("vm0")
    assert vm.entry.extent.size == 64 * MIB
    again = await life.reboot("vm0")
    assert (again.state, again is vm) == (VmState.RUNNING, False)
    await life.stop("vm0", force=True)
    await life.remove("vm0")
    assert (extents(host), folders(host.run_dir)) == ([], [])
    for gone in (life.start, life.stop, life.remove, life.pause, life.reset, life.reboot):
        with pytest.raises(BadRequestError, match="no VM named 'vm0'"):
            await gone("vm0")


Verb = Callable[[Lifecycle], Awaitable[Any]]
CHANGED = replace(SMALL, append="quiet")


@pytest.mark.parametrize(
    ("verb", "says", "hint"),
    [
        (lambda life: life.start("vm0"), r"already a VM vm0 \(running\)", "multiroot vm show vm0"),
        (lambda life: life.run(SMALL), r"already a VM vm0 \(running\)", "multiroot vm show vm0"),
        (lambda life: life.define(SMALL), r"already a VM vm0 \(running\)", "multiroot vm show vm0"),
        (lambda life: life.edit(CHANGED), "vm0 is running", "multiroot vm stop vm0"),
        (lambda life: life.remove("vm0"), "vm0 is running", "multiroot vm rm vm0 --force"),
    ],
)
async def test_what_a_running_vm_refuses(
    life: Lifecycle, manager: VmManager, host: Host, verb: Verb, says: str, hint: str
) -> None:
    vm = await life.run(SMALL)
    with pytest.raises(ConflictError, match=says) as told:
        await verb(life)
    assert hint in told.value.hint
    assert (vm.state, extents(host)) == (VmState.RUNNING, [HOME, "vm0"])
    kept = manager.homes.read("vm0")
    assert kept
    assert kept.definition == SMALL


@pytest.mark.parametrize(
    ("verb", "says", "hint"),
    [
        (lambda life: life.run(SMALL), r"already a VM vm0 \(stopped\)", "multiroot vm start vm0"),
        (lambda life: life.define(SMALL), r"already a VM vm0 \(stopped\)", "multiroot vm start vm0"),
        (lambda life: life.pause("vm0"), "it is stopped", "multiroot vm start vm0"),
        (lambda life: life.resume("vm0"), "it is stopped", "multiroot vm start vm0"),
        (lambda life: life.reset("vm0"), "it is stopped", "multiroot vm start vm0"),
        (lambda life: life.reboot("vm0"), "it is stopped", "multiroot vm start vm0"),
    ],
)
async def test_what_a_stopped_vm_refuses(
    life: Lifecycle, host: Host, verb: Verb, says: str, hint: str
) -> None:
    await life.define(SMALL)
    with pytest.raises(ConflictError, match=says) as told:
        await verb(life)
    assert hint in told.value.hint
    assert extents(host) == [HOME]


async def test_one_that_does_not_start_leaves_nothing_when_it_is_new_and_its_definition_when_it_is_not(
    life: Lifecycle, host: Host, manager: VmManager, set_faults: SetFaults
) -> None:
    set_faults("exit")
    with pytest.raises(CommandError, match="unsupported machine"):
        await life.run(SMALL)
    assert extents(host) == []
    set_faults("")
    await life.define(SMALL)
    set_faults("exit")
    with pytest.raises(CommandError, match="unsupported machine"):
        await life.start("vm0")
    assert (extents(host), manager.state("vm0")) == ([HOME], VmState.STOPPED)
    with pytest.raises(ConflictError, match="no free extent of 126 MiB"):
        await life.run(replace(SMALL, name="vm1", ram_bytes=126 * MIB, cards=()))
    assert extents(host) == [HOME]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"machine": "q35,no-such-option=on"}, "machine 'q35,no-such-option=on': .*not found"),
        ({"machine": "microvm,hpet=on"}, "Property 'microvm-machine.hpet' not found"),
        ({"machine": "q35,usb=on", "watchdog": "reset"}, "slot 29 function 0 not available"),
        ({"cpu": "no-such-model"}, "no CPU 'no-such-model'"),
        ({"cpu": "base,no-such-feature=on"}, "no-such-feature' not found"),
        ({"guest": "other"}, "no guest image 'other'"),
        ({"ram_bytes": 1024 * MIB}, "1 GiB of memory is more than the arena has"),
        ({"disks": (Disk("pmem:0x7"),)}, "no persistent memory at 0x7"),
        ({"functions": ("01:00.0",)}, "this root has none to give"),
        ({"kernel": "sha256:" + "0" * 64}, "does not have the file"),
        ({"machine": "pc"}, "no machine called 'pc'"),
    ],
)
async def test_what_can_never_start_is_not_defined_either(
    life: Lifecycle, host: Host, manager: VmManager, change: dict[str, Any], says: str
) -> None:
    """Proves that all ways to have a VM refuse it by the same words, and change nothing."""
    for verb in (life.define, life.run):
        with pytest.raises(BadRequestError, match=says):
            await verb(replace(SMALL, **change))
        assert extents(host) == []
    await life.define(SMALL)
    with pytest.raises(BadRequestError, match=says):
        await life.edit(replace(SMALL, **change))
    kept = manager.homes.read("vm0")
    assert kept
    assert (kept.definition, extents(host)) == (SMALL, [HOME])


async def test_a_disk_that_is_in_use_can_be_a_vms_when_it_starts(life: Lifecycle, host: Host) -> None:
    def find(disk: Disk) -> Pmem:
        raise ConflictError("this root has it mounted")

    taken = Lifecycle(VmManager(replace(host, find_disk=find)))
    await taken.define(replace(SMALL, disks=(Disk("pmem:0x7"),)))
    with pytest.raises(ConflictError, match="has it mounted"):
        await taken.start("vm0")
    assert extents(host) == [HOME]


async def test_a_guest_that_powers_off_has_no_memory_any_more_and_what_it_said_can_be_read(
    life: Lifecycle, host: Host, manager: VmManager
) -> None:
    vm = await life.run(SMALL)
    await wait_for_ticks(vm, 1)
    await life.reset("vm0")
    await power_off(vm)
    assert (vm.state, extents(host)) == (VmState.STOPPED, [HOME])
    assert manager.find("vm0") is vm
    assert vm.folder.guest_words()
    kept = manager.homes.read("vm0")
    assert kept
    assert [notice.what for notice in kept.notices] == ["the guest was reset"]
    # And an agent that comes now, or another root's, knows as much.
    again = VmManager(host)
    await again.adopt()
    assert (again.find("vm0"), again.state("vm0")) == (None, VmState.STOPPED)
    assert (await Lifecycle(again).start("vm0")).state is VmState.RUNNING
    await again.stop("vm0")


async def test_a_guest_that_powers_off_while_something_is_done_with_it_keeps_its_memory_till_then(
    life: Lifecycle, host: Host
) -> None:
    vm = await life.run(SMALL)
    with vm.busy("handed over"):
        await power_off(vm)
        assert extents(host) == [HOME, "vm0"]
    assert extents(host) == [HOME]


async def test_a_guest_that_powers_off_in_a_root_that_it_has_left_frees_nothing(
    life: Lifecycle, host: Host
) -> None:
    vm = await life.run(SMALL)
    host.arena.take("vm0", vm.owner, 2)
    await power_off(vm)
    assert extents(host) == [HOME, "vm0"]


async def test_a_guest_that_hears_no_button(
    life: Lifecycle, manager: VmManager, set_faults: SetFaults
) -> None:
    set_faults("deaf")
    vm = await life.run(SMALL)
    with pytest.raises(WaitTimeoutError, match=r"vm0 has not powered off within 0\.1 s") as told:
        await life.stop("vm0", timeout_s=0.1)
    assert "multiroot vm stop vm0 --force" in told.value.hint
    assert vm.state is VmState.RUNNING
    await life.pause("vm0")
    with pytest.raises(ConflictError, match="vm0 is paused and hears no power button") as refused:
        await life.stop("vm0")
    assert "multiroot vm stop vm0 --force" in refused.value.hint
    await life.resume("vm0")
    await life.stop("vm0", force=True, timeout_s=0.1)
    assert manager.state("vm0") is VmState.STOPPED
    await life.edit(replace(SMALL, machine="microvm,acpi=off"))
    await life.start("vm0")
    with pytest.raises(ConflictError, match="vm0 has no power button, it is a microvm without ACPI"):
        await life.stop("vm0")


async def test_one_that_failed_starts_again_and_says_why_when_it_is_stopped(
    life: Lifecycle, host: Host, manager: VmManager
) -> None:
    for verb in (life.stop, life.start):
        vm = await (life.run(SMALL) if verb == life.stop else life.start("vm0"))
        assert vm.vmm.process
        os.kill(vm.vmm.process.pid, 9)
        await vm.ended()
        assert manager.state("vm0") is VmState.FAILED
        await verb("vm0")
        kept = manager.homes.read("vm0")
        assert kept
        assert kept.error.startswith("QEMU was killed by SIGKILL")
    assert manager.state("vm0") is VmState.RUNNING


async def test_pause_and_resume_twice_each(life: Lifecycle, manager: VmManager) -> None:
    vm = await life.run(SMALL)
    await wait_for_ticks(vm, 3)
    for _ in range(2):
        assert (await life.pause("vm0")).state is VmState.PAUSED
        still = counter(vm)
        await asyncio.sleep(0.05)
        assert counter(vm) == still
    with pytest.raises(ConflictError, match="vm0 is paused") as told:
        manager.running("vm0")
    assert told.value.hint == "let it go on: multiroot vm resume vm0"
    for _ in range(2):
        assert (await life.resume("vm0")).state is VmState.RUNNING
    while counter(vm) == still:
        await asyncio.sleep(0.01)


async def test_a_new_agent_leaves_a_paused_vm_paused(life: Lifecycle, host: Host) -> None:
    vm = await life.run(SMALL)
    await wait_for_ticks(vm, 3)
    await life.pause("vm0")
    await qmp_of(vm).disconnect()
    again = VmManager(host)
    await again.adopt()
    found = again.live("vm0")
    still = counter(found)
    assert (found.state, found.paused) == (VmState.PAUSED, True)
    await asyncio.sleep(0.05)
    assert counter(found) == still
    await Lifecycle(again).resume("vm0")
    while counter(found) == still:
        await asyncio.sleep(0.01)
    await again.stop("vm0")


async def test_what_another_root_does_at_the_same_time(
    life: Lifecycle, manager: VmManager, host: Host, arena_path: Path
) -> None:
    """Whoever is first has it: another root changes, removes or starts the VM just before this one."""
    there = Lifecycle(VmManager(replace(host, root=2, arena=Arena(arena_path, 2))))
    await life.define(SMALL)
    allocate = host.arena.allocate

    def late(*what: Any) -> Any:
        home.Homes(there._manager.host.arena).write(home.Home(CHANGED))
        return allocate(*what)

    host.arena.allocate = late  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="vm0 was just changed"):
        await life.start("vm0")
    assert extents(host) == [HOME]
    host.arena.allocate = allocate  # type: ignore[method-assign]
    vm = await life.start("vm0")
    assert vm.definition == CHANGED
    for refused in (there.start("vm0"), there.edit(SMALL), there.remove("vm0"), there.define(SMALL)):
        with pytest.raises(ConflictError, match=r"vm0 is handed|already a VM vm0 \(in root 1\)"):
            await refused
    there._manager.host.arena.close()


async def test_the_cpu_that_it_had_at_first_it_has_ever_after(life: Lifecycle, manager: VmManager) -> None:
    vm = await life.run(replace(SMALL, cpu="frozen"))
    assert vm.definition.cpu.startswith("base,")
    await life.stop("vm0", force=True)
    kept = manager.homes.read("vm0")
    assert kept
    assert kept.definition == vm.definition


async def test_one_that_nobody_can_read_is_told_and_can_be_removed(life: Lifecycle, host: Host) -> None:
    host.arena.allocate(HOME, home.SIZE, 0)
    with pytest.raises(ConflictError, match="what the arena keeps of vm0 cannot be read") as told:
        await life.start("vm0")
    assert told.value.hint == "forget it: multiroot vm rm vm0"
    await life.remove("vm0")
    assert extents(host) == []


async def test_a_guest_that_powers_off_before_its_vmm_answers(
    life: Lifecycle, host: Host, manager: VmManager, set_faults: SetFaults
) -> None:
    set_faults("die:system_powerdown")
    await life.run(SMALL)
    await life.stop("vm0", timeout_s=20)
    assert (extents(host), manager.state("vm0")) == ([HOME], VmState.STOPPED)


@pytest.mark.parametrize("card", [Card(mac="52:54:00:00:00:09"), Card(address="10.77.1.9/24")])
async def test_an_address_belongs_to_one_vm(life: Lifecycle, host: Host, card: Card) -> None:
    has = replace(SMALL, cards=(Card("52:54:00:00:00:09", "10.77.1.9/16"),))
    await life.define(has)
    other = replace(SMALL, name="vm1", cards=(card,))
    for verb in (life.define, life.run):
        with pytest.raises(
            ConflictError, match=r"the VM vm0 has the address (52:54:00:00:00:09|10.77.1.9), too"
        ):
            await verb(other)
    await life.define(replace(other, cards=()))
    with pytest.raises(ConflictError, match="the VM vm0 has the address"):
        await life.edit(other)
    await life.edit(has)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3])
async def test_whoever_goes_away_leaves_a_vm_that_runs_and_nothing_else(
    host: Host, manager: VmManager, life: Lifecycle, seconds: float
) -> None:
    """As one who types Ctrl-C: `vm run` goes on, whatever it was about to do."""
    asking = asyncio.create_task(life.run(SMALL))
    await asyncio.wait({asking}, timeout=seconds)  # no event tells how far it is, and any moment will do
    asking.cancel()
    await asyncio.wait({asking})
    while manager.state("vm0") is not VmState.RUNNING:
        await asyncio.sleep(0.01)
    assert extents(host) == [HOME, "vm0"]
    await wait_for_ticks(manager.get("vm0"), 3)
    going = asyncio.create_task(life.remove("vm0", force=True))
    await asyncio.sleep(0)
    going.cancel()
    while extents(host):
        await asyncio.sleep(0.01)
    assert manager.find("vm0") is None


@pytest.mark.parametrize("moments", [1, 3, 5, 8])
async def test_whoever_goes_away_leaves_a_guest_that_stands_still_as_is_said(
    life: Lifecycle, moments: int
) -> None:
    """By Ctrl-C of `vm pause`: its QEMU may have been asked already."""
    vm = await life.run(SMALL)
    asking = asyncio.create_task(life.pause("vm0"))
    for _ in range(moments):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    while vm.state is not VmState.PAUSED:
        await asyncio.sleep(0.01)
    await life.resume("vm0")
    seen = counter(vm)
    while counter(vm) == seen:
        await asyncio.sleep(0.01)


async def test_whoever_goes_away_has_his_vm_rebooted(life: Lifecycle, manager: VmManager) -> None:
    """Its guest has been asked to power off: without the rest it would stay so."""
    vm = await life.run(SMALL)
    asking = asyncio.create_task(life.reboot("vm0"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    while (again := manager.find("vm0")) is vm or again is None or again.state is not VmState.RUNNING:
        await asyncio.sleep(0.01)


async def test_a_vm_whose_start_is_cut_off_leaves_no_vmm(host: Host, manager: VmManager) -> None:
    """An agent that ends cancels all that it does."""
    vm = manager.made(SMALL, host.arena.allocate("vm0", SMALL.ram_bytes, SMALL.checksum()), "")
    starting = asyncio.create_task(vm.start())
    while vm.vmm.process is None:
        await asyncio.sleep(0)
    process = vm.vmm.process
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert not process.alive()
    assert folders(host.run_dir) == []
