# SPDX-License-Identifier: GPL-2.0-or-later
"""A handoff that works, and handoffs in which something breaks: one copy of the guest runs afterwards."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from multiroot.arena.allocator import Extent
from multiroot.arena.layout import Owner
from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.errors import (
    BadRequestError,
    CommandError,
    ConflictError,
    MultirootError,
    PeerLostError,
    WaitTimeoutError,
)
from multiroot.handoff import giver as giver_module
from multiroot.handoff import incoming as incoming_module
from multiroot.handoff import relay
from multiroot.handoff import taker as taker_module
from multiroot.handoff.expecting import expect
from multiroot.handoff.giver import hand_over
from multiroot.handoff.target import Target
from multiroot.handoff.terms import Terms
from multiroot.phases import Phases
from multiroot.units import MIB
from multiroot.vm.definition import Card
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.qemu import memory_map
from multiroot.vm.qemu.vmm import QemuVmm, ram_copied
from multiroot.vm.vmm import VmmVersion

from .harness import (
    SMALL,
    Root,
    assert_runs_only_in,
    ended,
    hand,
    no_qemu,
    qmp_of,
    seen_across,
    start_vm,
)

Roots = tuple[Root, Root]


async def test_there_and_back(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    result = await hand(giver, taker)
    assert (result.name, result.epoch, result.ram_bytes_copied) == ("vm0", 2, 0)
    assert result.device_state_bytes > 0
    assert 0 < result.stopped_ns <= result.resumed_ns
    await assert_runs_only_in(taker, giver)
    assert giver.manager.get("vm0").state is VmState.HANDED
    with pytest.raises(ConflictError, match="handed to root 2"):
        await hand(giver, taker)

    result = await hand(taker, giver)
    assert result.epoch == 3
    await assert_runs_only_in(giver, taker)


async def test_what_happened_to_a_vm_is_known_where_it_goes(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    await Lifecycle(giver.manager).reset("vm0")
    await hand(giver, taker)
    await Lifecycle(taker.manager).reset("vm0")
    notices = taker.manager.get("vm0").notices
    assert [notice.what for notice in notices] == ["the guest was reset"] * 2
    with pytest.raises(ConflictError, match="has been handed to root 2"):
        await Lifecycle(giver.manager).reset("vm0")


async def test_the_guest_counts_on(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    await hand(giver, taker)
    await taker.ticks(20)
    seen = await seen_across(giver, taker)
    assert seen.unbroken
    assert seen.first == 1
    assert seen.last > 20


async def test_phases_of_both_roots_come_back(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    phases = Phases("root 1", giver.host.clock)
    await hand_over(giver.manager, "vm0", Target(2, taker.channel), phases)
    sides = {(phase.side, phase.name): phase for phase in phases.finished}
    assert ("root 1", "prepare") in sides
    blackout = {key for key, phase in sides.items() if phase.blackout}
    assert blackout == {
        ("root 1", "save device state"),
        ("root 1", "device state on its way"),
        ("root 2", "load device state"),
        ("root 2", "wait for the completion event"),
        ("root 2", "check device state"),
        ("root 2", "commit"),
        ("root 2", "resume"),
    }
    saving, way = sides["root 1", "save device state"], sides["root 1", "device state on its way"]
    loading, told = (
        sides["root 2", "load device state"],
        sides["root 2", "tell the bridge where the guest is"],
    )
    assert (saving.end_ns, way.end_ns) == (way.start_ns, loading.start_ns)
    assert told.start_ns == sides["root 2", "resume"].end_ns


async def test_the_memory_map_goes_ahead(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    before = await memory_map.read(qmp_of(vm), "q35")
    assert before.modern_hotplug
    assert any(before.registers.values())
    await hand(giver, taker)
    assert await memory_map.read(qmp_of(taker.manager.running("vm0")), "q35") == before


@pytest.mark.parametrize("refusing", [0, 1])
async def test_it_goes_without_a_memory_map_too(roots: Roots, refusing: int) -> None:
    giver, taker = roots
    roots[refusing].faults("refuse:human-monitor-command")
    await start_vm(giver)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ("exit", "did not start"),
        ("refuse:getfd", "not to be had"),
        ("refuse:migrate-incoming", "not to be had"),
        ("die:migrate-incoming", "went away"),
        ("version=2", "ours qemu 9.9.92"),
        ("refuse-state", "did not accept the device state"),
        ("refuse:cont", "not to be had"),
    ],
)
async def test_taker_cannot_and_the_guest_goes_on_in_the_giver(roots: Roots, faults: str, words: str) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    taker.faults(faults)
    with pytest.raises(MultirootError, match=words):
        await hand(giver, taker)
    assert vm.owner.epoch > 1
    await assert_runs_only_in(giver, taker)
    assert taker.manager.find("vm0") is None
    taker.faults("")
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)
    assert (await seen_across(giver, taker)).unbroken


@pytest.mark.parametrize("cpu", ["frozen", "host"])
async def test_a_taker_that_lacks_a_cpu_feature_says_so_before_anything_stops(roots: Roots, cpu: str) -> None:
    giver, taker = roots
    vm = await giver.manager.run(replace(SMALL, cpu=cpu))
    taker.faults("no-svm")
    with pytest.raises(ConflictError, match="cannot give vm0 its CPU, it lacks: svm"):
        await hand(giver, taker)
    phases = Phases("root 1", giver.host.clock)
    (expected,) = await expect(giver.manager, ["vm0"], Target(2, taker.channel), phases, 1)
    assert expected.error
    assert "it lacks: svm" in expected.error.message
    assert vm.notices == ()
    await assert_runs_only_in(giver, taker)


async def test_a_cpu_that_follows_the_root_is_the_same_until_the_vm_stops(roots: Roots) -> None:
    giver, taker = roots
    vm = await giver.manager.run(replace(SMALL, cpu="host,svm=off"))
    # Whatever this root would give: it has the feature.
    taker.faults("")
    await hand(giver, taker)
    there = taker.manager.running("vm0")
    assert (there.cpu, there.definition.cpu) == (vm.cpu, "host,svm=off")
    await assert_runs_only_in(taker, giver)
    giver.faults("no-svm")
    await hand(taker, giver)
    assert giver.manager.running("vm0").cpu == vm.cpu
    await assert_runs_only_in(giver, taker)


async def test_giver_that_cannot_migrate_goes_on(roots: Roots) -> None:
    giver, taker = roots
    giver.faults("refuse:migrate")
    await start_vm(giver)
    with pytest.raises(CommandError, match="QEMU refused migrate: migrate is not to be had"):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)


@pytest.mark.parametrize("faults", ["die-before-stop", "die-stopped", "die:migrate"])
async def test_a_qemu_that_dies_in_the_giver_takes_only_its_own_guest_along(
    roots: Roots, faults: str
) -> None:
    giver, taker = roots
    giver.faults(faults)
    vm = await start_vm(giver)
    with pytest.raises(MultirootError):
        await hand(giver, taker)
    await ended(vm)
    assert vm.state is VmState.FAILED
    assert vm.word.read().root == 1
    await no_qemu(taker)
    await giver.manager.stop("vm0")
    giver.faults("")
    await start_vm(giver)
    await assert_runs_only_in(giver, taker)


async def test_a_guest_that_crashes_in_the_taker_is_the_takers(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    taker.faults("die:cont")
    with pytest.raises(MultirootError, match="went away during cont"):
        await hand(giver, taker)
    assert vm.word.read() == Owner(2, 2)
    await no_qemu(giver)
    assert giver.manager.get("vm0").state is VmState.HANDED
    await ended(taker.manager.get("vm0"))
    assert taker.manager.get("vm0").state is VmState.FAILED
    await taker.manager.stop("vm0")
    assert taker.host.arena.entries() == []


async def test_taker_out_of_reach(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    await taker.server.stop(None)
    with pytest.raises(PeerLostError, match="does not answer"):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)


async def test_taker_lost_after_preparing(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    giver, taker = roots
    await start_vm(giver)
    prepare_taker = giver_module.Attempt._prepare_taker

    async def then_lose_it(attempt: giver_module.Attempt) -> object:
        endpoint = await prepare_taker(attempt)
        await taker.server.stop(None)
        return endpoint

    monkeypatch.setattr(giver_module.Attempt, "_prepare_taker", then_lose_it)
    with pytest.raises(PeerLostError):
        await hand(giver, taker)
    await taker.taker.close()
    await assert_runs_only_in(giver, taker)


async def test_taker_lost_while_the_state_is_on_its_way(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker = roots
    await start_vm(giver)
    taker.faults("hang-load")
    sending = asyncio.Event()
    original = QemuVmm.send

    async def send(vmm: QemuVmm) -> None:
        await original(vmm)
        sending.set()

    monkeypatch.setattr(QemuVmm, "send", send)
    with pytest.raises(PeerLostError, match="is gone"):
        await hand(giver, taker, sending.wait)
    await assert_runs_only_in(giver, taker)


async def test_a_limit_puts_an_end_to_a_taker_that_hangs(roots: Roots) -> None:
    """QEMU's own STOP event says since when the guest stands still."""
    giver, taker = roots
    vm = await start_vm(giver)
    taker.faults("hang-load")
    with pytest.raises(WaitTimeoutError, match="stood still for 60 ms and was not root 2's yet"):
        await hand(giver, taker, terms=Terms(downtime_ms=60))
    await assert_runs_only_in(giver, taker)
    assert vm.owner == Owner(1, 2)
    taker.faults("")
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_slow_taker_is_fenced(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """The giver gives up while the taker is just about to take: the taker comes too late."""
    giver, taker = roots
    vm = await start_vm(giver)
    loaded, proceed = asyncio.Event(), threading.Event()
    original = QemuVmm.take
    loop = asyncio.get_running_loop()

    def slowly(vmm: QemuVmm, switch: Switch, until: Step) -> Outcome:
        original(vmm, switch, Step.CHECKED)
        loop.call_soon_threadsafe(loaded.set)
        proceed.wait()
        return original(vmm, switch, until)

    monkeypatch.setattr(QemuVmm, "take", slowly)
    # It does not learn that the call was given up, as when the link is dead.
    monkeypatch.setattr(grpc.aio.UnaryStreamCall, "cancel", lambda call: False)
    monkeypatch.setattr(giver_module.Attempt, "_tell_taker", lambda attempt: asyncio.sleep(0))
    with pytest.raises(PeerLostError):
        await hand(giver, taker, loaded.wait)
    assert vm.owner == Owner(1, 2)
    proceed.set()
    await assert_runs_only_in(giver, taker)


async def test_a_cancelled_handoff_is_settled(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the state has been sent. The VMM cannot tell this test: its events are for the handoff alone."""
    giver, taker = roots
    await start_vm(giver)
    taker.faults("hang-load")
    original, all_sent = relay.OutgoingState._send, threading.Event()

    def send(state: relay.OutgoingState, data: memoryview) -> None:
        original(state, data)
        if not data:
            all_sent.set()

    monkeypatch.setattr(relay.OutgoingState, "_send", send)
    handing = asyncio.create_task(hand(giver, taker))
    assert await asyncio.to_thread(all_sent.wait, 20)
    assert not handing.done()
    handing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handing
    await assert_runs_only_in(giver, taker)


async def test_unknown_vm(roots: Roots) -> None:
    giver, taker = roots
    with pytest.raises(BadRequestError, match="no VM named 'vm0'"):
        await hand(giver, taker)


async def prepare(taker: Root, vm: Instance, **changes: object) -> None:
    request = {
        "definition": vm.definition,
        "extents": [vm.entry.extent],
        "giver": vm.owner,
        "vmm": VmmVersion(vm.vmm.name, vm.vmm.version),
    } | changes
    await taker.taker.prepare(**request)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"definition": replace(SMALL, cpus=2)}, "another definition"),
        ({"definition": replace(SMALL, cards=(Card(),))}, "not complete"),
        ({"definition": replace(SMALL, name="vm1")}, "no extent named 'vm1'"),
        ({"definition": replace(SMALL, guest="absent")}, "no guest image"),
        ({"extents": [Extent(4 * MIB, 32 * MIB)]}, "other extents"),
        ({"extents": []}, "other extents"),
        ({"giver": Owner(1, 7)}, "owned by root 1 in epoch 1, not by root 1 in epoch 7"),
        ({"giver": Owner(3, 1)}, "not by root 3"),
        ({"cpu": "base,lm=on"}, "does not come with it"),
        ({"vmm": VmmVersion("other", "1")}, "the giver's VMM is other, ours qemu"),
    ],
)
async def test_taker_checks_what_it_is_told(roots: Roots, changes: dict[str, object], words: str) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    with pytest.raises(MultirootError, match=words):
        await prepare(taker, vm, **changes)
    await assert_runs_only_in(giver, taker)
    assert taker.manager.all() == []


async def test_transfer_wants_preparation(roots: Roots) -> None:
    taker = roots[1]

    with pytest.raises(BadRequestError, match="not been prepared"):
        await taker.taker.ready("vm0")
    await taker.taker.abort("vm0")


async def test_preparing_again_replaces_the_first(roots: Roots) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    await prepare(taker, vm)
    first = taker.manager.get("vm0")
    await prepare(taker, vm)
    assert taker.manager.get("vm0") is not first
    assert first.vmm.process
    assert not first.vmm.process.alive()
    await taker.taker.abort("vm0")
    await assert_runs_only_in(giver, taker)


async def test_a_record_that_cannot_be_written_any_more_spoils_nothing(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker = roots
    await start_vm(giver)

    def keep(vm: Instance) -> None:
        raise MultirootError(f"cannot write {vm.name}'s record: No space left on device")

    monkeypatch.setattr(Instance, "keep", keep)
    assert (await hand(giver, taker)).resumed_ns
    await assert_runs_only_in(taker, giver)


async def test_prepared_in_vain(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    giver, taker = roots
    monkeypatch.setattr(incoming_module, "PREPARED_FOR_S", 0.0)
    vm = await start_vm(giver)
    await prepare(taker, vm)
    await taker.manager.get("vm0").vmm.wait_end()
    await assert_runs_only_in(giver, taker)


async def test_prepared_for_a_giver_that_was_restarted(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next agent raises the owner word and knows nothing of the handoff: the word tells the taker."""
    giver, taker = roots
    monkeypatch.setattr(taker_module, "LOOK_S", 0.01)
    vm = await start_vm(giver)
    await prepare(taker, vm)
    vm.owner = vm.word.take(vm.owner, giver.number)
    await taker.manager.get("vm0").vmm.wait_end()
    await assert_runs_only_in(giver, taker)


async def test_prepared_for_a_root_that_has_ended(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that panics breaks no connection; the ledger tells of its end."""
    giver, taker = roots
    monkeypatch.setattr(taker_module, "LOOK_S", 0.01)
    vm = await start_vm(giver)
    await prepare(taker, vm)
    taker.ended.add(giver.number)
    await taker.manager.get("vm0").vmm.wait_end()
    taker.ended.clear()
    await assert_runs_only_in(giver, taker)


def test_ram_copied() -> None:
    roms = {"total": 800 * 1024, "normal": 60, "page-size": 4096, "transferred": 250_000}
    assert ram_copied(roms, 32 * MIB) == 0
    everything = {"total": 33 * MIB, "normal": 8000, "page-size": 4096, "transferred": 34_000_000}
    assert ram_copied(everything, 32 * MIB) == 8000 * 4096


def test_paths_fit_unix_sockets(tmp_path: Path) -> None:
    from multiroot.vm.folder import RUN_DIR, VmFolder

    assert len(str(VmFolder(RUN_DIR, "x" * 32).console)) < 108
