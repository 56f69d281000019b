# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that is paused, or stopped, and more than one root."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from multiroot.errors import ConflictError
from multiroot.handoff.terms import PATIENT
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_to_proto

from .harness import RAM, SMALL, Root, hand, no_qemu, qmp_of, seen_across, start_vm

Roots = tuple[Root, Root]


def counted(vm: Instance) -> int:
    """How far the guest has counted, in its own RAM."""
    with vm.host.arena.mapped(vm.entry.extent) as memory:
        return int(RAM.unpack_from(memory)[0])


async def assert_stands_still(vm: Instance) -> None:
    assert vm.state is VmState.PAUSED
    before = counted(vm)
    await asyncio.sleep(0.05)
    assert counted(vm) == before


async def test_a_paused_vm_goes_over_and_stays_paused_until_it_is_resumed(roots: Roots) -> None:
    old, new = roots
    life, there = Lifecycle(old.manager), Lifecycle(new.manager)
    await start_vm(old)
    await life.pause("vm0")
    result = await hand(old, new, terms=replace(PATIENT, downtime_ms=1))  # it misses nothing
    assert result.stopped_ns <= result.resumed_ns
    vm = new.manager.live("vm0")
    await assert_stands_still(vm)
    await no_qemu(old)
    assert (await there.resume("vm0")).state is VmState.RUNNING
    await new.ticks(20)
    seen = await seen_across(old, new)
    assert seen.unbroken


@pytest.mark.parametrize("faults", ["refuse-state", "version=X", "die:migrate-incoming"])
async def test_a_handoff_that_fails_leaves_a_paused_vm_paused(roots: Roots, faults: str) -> None:
    old, new = roots
    await start_vm(old)
    await Lifecycle(old.manager).pause("vm0")
    new.faults(faults)
    with pytest.raises(Exception, match=r"state|version|qemu|QEMU"):
        await hand(old, new)
    vm = old.manager.live("vm0")
    await assert_stands_still(vm)
    new.faults("")
    await hand(old, new)
    await assert_stands_still(new.manager.live("vm0"))
    assert not (await qmp_of(new.manager.live("vm0")).execute("query-status"))["running"]


async def test_the_takers_next_agent_leaves_it_paused(roots: Roots) -> None:
    old, new = roots
    await start_vm(old)
    await Lifecycle(old.manager).pause("vm0")
    await hand(old, new)
    await qmp_of(new.manager.live("vm0")).disconnect()
    again = VmManager(new.host)
    await again.adopt()
    await assert_stands_still(again.live("vm0"))
    await again.stop("vm0")


def stub_of(root: Root) -> vm_pb2_grpc.VmServiceAsyncStub:
    return vm_pb2_grpc.VmServiceStub(root.channel)


async def listed(root: Root) -> list[tuple[str, str, int]]:
    answer = await stub_of(root).List(vm_pb2.ListVmsRequest())
    return [(vm.definition.name, vm.state, vm.owner) for vm in answer.vms]


async def test_each_verb_goes_to_the_owner_and_a_stopped_vm_is_every_roots(roots: Roots) -> None:
    old, new = roots
    old.peers[2], new.peers[1] = new.channel, old.channel
    run = vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL))
    await stub_of(new).Run(run)
    name = {"name": "vm0"}
    assert (await stub_of(old).Pause(vm_pb2.PauseVmRequest(**name))).state == "paused"
    assert await listed(old) == await listed(new) == [("vm0", "paused", 2)]
    assert (await stub_of(old).Unpause(vm_pb2.UnpauseVmRequest(**name))).state == "running"
    with pytest.raises(ConflictError, match="vm0 is running"), translated("the agent"):
        await stub_of(old).Remove(vm_pb2.RemoveVmRequest(**name))
    with pytest.raises(ConflictError, match="already a VM vm0"), translated("the agent"):
        await stub_of(old).Start(vm_pb2.StartVmRequest(**name))
    assert (await stub_of(old).Reboot(vm_pb2.RebootVmRequest(**name))).owner == 2
    await stub_of(old).Stop(vm_pb2.StopVmRequest(**name))
    assert await listed(old) == await listed(new) == [("vm0", "stopped", 0)]
    shown = [await stub_of(root).Get(vm_pb2.GetVmRequest(**name)) for root in roots]
    assert shown[0] == shown[1]
    assert shown[0].definition == run.definition
    changed = definition_to_proto(replace(SMALL, append="quiet"))
    assert (await stub_of(old).Edit(vm_pb2.EditVmRequest(definition=changed))).definition == changed
    started = await stub_of(old).Start(vm_pb2.StartVmRequest(**name))
    assert (started.owner, started.definition) == (1, changed)
    await hand(old, new)
    await stub_of(old).Remove(vm_pb2.RemoveVmRequest(**name, force=True))
    assert await listed(old) == await listed(new) == []
    assert old.host.arena.entries() == []


async def test_a_vm_that_was_lost_with_its_root_starts_in_another(roots: Roots) -> None:
    old, new = roots
    await stub_of(new).Run(vm_pb2.RunVmRequest(definition=definition_to_proto(SMALL)))
    for vm in new.manager.all():
        await vm.vmm.end()
    old.ended.add(2)
    lost = await stub_of(old).Get(vm_pb2.GetVmRequest(name="vm0"))
    assert (lost.state, lost.definition.guest) == ("lost", "tiny")
    with pytest.raises(ConflictError, match=r"already a VM vm0 \(lost\)") as told:
        await Lifecycle(old.manager).start("vm0")
    assert told.value.hint == "free its memory: multiroot vm forget vm0"
    await stub_of(old).Forget(vm_pb2.ForgetVmRequest(name="vm0"))
    stopped = await stub_of(old).Get(vm_pb2.GetVmRequest(name="vm0"))
    assert (stopped.state, stopped.error) == ("stopped", "root 2, which owned it, has ended")
    assert (await stub_of(old).Start(vm_pb2.StartVmRequest(name="vm0"))).owner == 1


async def test_one_that_came_paused_goes_on_only_when_it_has_run(roots: Roots) -> None:
    """A QEMU that has not run the guest would save its own clock for the guest's."""
    old, new = roots
    await start_vm(old)
    await Lifecycle(old.manager).pause("vm0")
    await hand(old, new)
    with pytest.raises(ConflictError, match="came here paused and has not run since") as told:
        await hand(new, old)
    assert told.value.hint == "let it run: multiroot vm resume vm0"
    kept = new.manager.live("vm0").folder.read()
    assert kept
    assert kept.untouched, "the next agent knows, too"
    await Lifecycle(new.manager).resume("vm0")
    await Lifecycle(new.manager).pause("vm0")
    await hand(new, old)
    await assert_stands_still(old.manager.live("vm0"))
