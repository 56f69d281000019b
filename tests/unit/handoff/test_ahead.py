# SPDX-License-Identifier: GPL-2.0-or-later
"""A VMM that was started before its VM is handed over is taken, or is gone without a trace."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError, CommandError, ConflictError
from multiroot.handoff import ahead as ahead_module
from multiroot.handoff import expecting
from multiroot.handoff.ahead import is_the_same_for_long
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.vm.definition import VmDefinition
from multiroot.vm.disk import parse_disks
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.vmm import VmmVersion

from .harness import SMALL, Root, assert_runs_only_in, command_lines, hand, no_qemu, start_vm, target

Roots = tuple[Root, Root]


async def expect(giver: Root, taker: Root, vm: Instance) -> None:
    version = VmmVersion(vm.vmm.name, vm.vmm.version)
    await taker.taker.expect(vm.definition, [vm.entry.extent], vm.owner, version)


def waiting(root: Root) -> list[str]:
    """QEMUs that wait for VMs of this arena."""
    return [line for line in command_lines() if str(root.host.arena.path) in line and "-incoming" in line]


async def nothing_left(root: Root) -> None:
    """Wait until there is no QEMU of it and no folder of a VM. A folder goes after its QEMU."""
    await no_qemu(root)
    while list(root.host.run_dir.iterdir()):
        await asyncio.sleep(0.01)


async def test_a_vm_that_is_expected_takes_the_vmm_that_waits(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    assert len(waiting(taker)) == 1
    # Nobody else is told of it.
    assert taker.manager.find("vm0") is None
    assert not taker.manager.all()
    taker.faults("exit")  # no other starts
    result = await hand(giver, taker)
    assert result.epoch == 2
    await assert_runs_only_in(taker, giver)
    assert taker.manager.running("vm0").folder.read() is not None


async def test_a_second_one_takes_the_place_of_the_first(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    await expect(giver, taker, vm)
    assert len(waiting(taker)) == 1
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_a_handoff_waits_for_a_start_that_is_under_way(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    under_way = asyncio.create_task(expect(giver, taker, vm))
    await asyncio.sleep(0)
    await hand(giver, taker)
    await under_way
    await assert_runs_only_in(taker, giver)


async def test_one_that_has_ended_meanwhile_is_replaced(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    found = taker.taker._ahead._expected["vm0"].vm
    await found.vmm.end()
    await found.ended()
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_a_vm_that_went_back_and_forth_is_still_the_one(roots: Roots) -> None:
    """Its epoch is another one than when it was expected."""
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    vm.owner = vm.word.take(vm.owner, giver.number)
    taker.faults("exit")
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)
    assert taker.manager.running("vm0").owner == Owner(taker.number, vm.owner.epoch)


async def test_one_that_does_not_start_leaves_nothing(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    taker.faults("exit")
    with pytest.raises(CommandError, match="did not start vm0"):
        await expect(giver, taker, vm)
    await nothing_left(taker)
    taker.faults("")
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_what_is_not_the_owners_is_not_expected(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    version = VmmVersion(vm.vmm.name, vm.vmm.version)
    other = replace(vm.definition, ram_bytes=vm.definition.ram_bytes * 2)
    for definition, owner, vmm, said in (
        (other, vm.owner, version, "another definition"),
        (vm.definition, Owner(giver.number, 7), version, "epoch 7"),
        (vm.definition, vm.owner, VmmVersion("bhyve", "1"), "the giver's VMM is bhyve"),
        (vm.definition, vm.owner, VmmVersion(vm.vmm.name, "0.1"), "the giver's VMM is"),
    ):
        with pytest.raises(ConflictError, match=said):
            await taker.taker.expect(definition, [vm.entry.extent], owner, vmm)
    await no_qemu(taker)
    function = replace(vm.definition, functions=("0000:00:05.0",))
    with pytest.raises(BadRequestError, match="known only when"):
        await taker.taker.expect(function, [vm.entry.extent], vm.owner, version)


async def test_a_vm_that_is_gone_is_expected_no_more(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "LOOK_S", 0.02)
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    await giver.manager.stop("vm0")
    await nothing_left(taker)
    assert not taker.taker._ahead._expected


async def test_a_vm_whose_root_has_ended_is_expected_no_more(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "LOOK_S", 0.02)
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    taker.ended.add(giver.number)
    await no_qemu(taker)
    assert not taker.taker._ahead._expected


async def test_a_new_vm_of_that_name_finds_its_place_free(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    await giver.manager.stop("vm0")
    # At once, before anybody has looked.
    new = await taker.manager.run(SMALL)
    assert new.state is VmState.RUNNING
    assert not waiting(taker)
    assert new.folder.read() is not None


async def test_a_shut_door_ends_those_that_wait(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    taker.manager.door.shut()
    await taker.taker.abort_all()
    await no_qemu(taker)
    with pytest.raises(ConflictError):
        await expect(giver, taker, vm)
    taker.manager.door.open()
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_what_an_agent_leaves_its_successor_ends(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await expect(giver, taker, vm)
    taker.taker._ahead._expected.clear()  # as if it were another process
    await taker.manager.adopt()
    await nothing_left(taker)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_the_giver_asks_for_several_and_tells_of_each(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    phases = Phases("root 1", time.monotonic_ns)
    (done,) = await expecting.expect(giver.manager, ["vm0", "vm0"], target(taker), phases, 2)
    assert (done.name, done.error) == ("vm0", None)
    assert [phase.name for phase in phases.finished] == [PhaseName.EXPECT]
    assert len(waiting(taker)) == 1
    await expecting.expect_no_more(["vm0", "vm7"], target(taker))
    assert not waiting(taker)
    taker.faults("exit")
    (done,) = await expecting.expect(giver.manager, ["vm0"], target(taker), phases, 2)
    assert isinstance(done.error, CommandError)
    with pytest.raises(BadRequestError, match="vm7"):
        await expecting.expect(giver.manager, ["vm0", "vm7"], target(taker), phases, 2)
    taker.faults("")
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


def test_what_is_opened_must_stay_as_it_is() -> None:
    plain = VmDefinition("vm0").checked()
    assert is_the_same_for_long(plain)
    assert is_the_same_for_long(replace(plain, disks=parse_disks(["pmem:debian"])))
    assert not is_the_same_for_long(replace(plain, disks=parse_disks(["nbd://10.0.0.1/x"])))
    assert not is_the_same_for_long(replace(plain, disks=parse_disks(["local:/srv/x.raw"])))
    assert not is_the_same_for_long(replace(plain, functions=("0000:00:05.0",)))
