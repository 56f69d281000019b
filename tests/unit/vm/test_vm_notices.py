# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a guest by itself is told, and kept."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from contextlib import suppress
from unittest.mock import ANY

import pytest
from vm.conftest import SMALL, SetFaults, power_off, qmp_of

from multiroot.errors import ConflictError
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.console import TOLD_SUFFIX
from multiroot.vm.host import Host
from multiroot.vm.instance import VmState
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.manager import VmManager
from multiroot.vm.notices import MOST, PANIC_SAID, PANICKED, Notice, all_of, newest, said
from multiroot.vm.qemu.notices import told
from multiroot.vm.qemu.vmm import QemuVmm
from multiroot.vm.stream import wait_for_ticks
from multiroot.vm.vm_service import VmService
from multiroot.vm.vmm import VmmGoneError


async def test_a_guest_that_resets_itself_boots_again_and_that_is_told(
    host: Host, manager: VmManager, set_faults: SetFaults
) -> None:
    """It is also known to the agent that comes after this one."""
    set_faults("reset:query-balloon")
    vm = await manager.run(SMALL)
    await qmp_of(vm).execute("query-balloon")
    await Lifecycle(manager).reset("vm0")
    assert vm.state is VmState.RUNNING
    assert [notice.what for notice in vm.notices] == ["the guest rebooted", "the guest was reset"]
    assert vm.notices[0].at_ns <= vm.notices[1].at_ns
    await qmp_of(vm).disconnect()
    again = VmManager(host)
    await again.adopt()
    assert again.get("vm0").notices == vm.notices


async def test_a_guest_that_kvm_cannot_go_on_with_has_failed(
    manager: VmManager, set_faults: SetFaults
) -> None:
    set_faults("broken:query-balloon")
    vm = await manager.run(SMALL)
    service = VmService(manager)
    await service.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=5), ANY)
    waiting = asyncio.create_task(
        service.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=1 << 40), ANY)
    )
    with suppress(VmmGoneError):
        await qmp_of(vm).execute("query-balloon")
    with pytest.raises(ConflictError, match="vm0 is failed and ticks no more") as error:
        await waiting
    assert vm.state is VmState.FAILED
    what = r"KVM could not go on with the guest \(internal error\); its last words: (READY|T|R) .*"
    assert re.fullmatch(what, error.value.hint)


async def test_what_the_console_says_of_the_guest_is_told(host: Host, manager: VmManager) -> None:
    """Each time with the same moment, and it stays when the guest has powered off."""
    vm = await Lifecycle(manager).run(SMALL)
    await wait_for_ticks(vm, 1)
    record = vm.folder.console_record
    at_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    line = "Out of memory: Killed process 71 (ticker) total-vm:9kB"
    record.with_name(record.name + TOLD_SUFFIX).write_text(f"{at_ns} {line}\n{at_ns} Killed process: none\n")
    (notice,) = first = vm.notices
    assert notice.what == "memory ran out in the guest, its console says: process 71 (ticker) was killed"
    assert abs(notice.at_ns - host.clock()) < 60e9
    assert vm.notices == first
    await power_off(vm)
    home = manager.homes.read("vm0")
    assert home
    assert [each.what for each in home.notices] == [notice.what]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "T 1[ 9.1] Out of memory (oom_kill_allocating_task): Killed process 7 (a) b) total-vm:9kB",
            "memory ran out in the guest, its console says: process 7 (a) b) was killed",
        ),
        (
            "Memory cgroup out of memory: Killed process 7 (sh) total-vm:9kB",
            "memory of a control group ran out in the guest, its console says: process 7 (sh) was killed",
        ),
        ("[ 9.1] Kernel panic - not syncing: Attempted to kill init!", PANIC_SAID),
        ("systemd: a: Killed process 7 (sh)", ""),
        ("", ""),
    ],
)
def test_what_a_line_says(line: str, what: str) -> None:
    found = said(5, line)
    assert (found.what if found else "") == what
    assert found is None or found.at_ns == 5


def test_a_panic_is_told_once() -> None:
    """By the device where there is one, with the rest in the order of time."""
    told_of = Notice(20_000_000_000, PANICKED)
    before, same = (Notice(told_of.at_ns - ns, PANIC_SAID) for ns in (15_000_000_000, 50_000_000))
    reset = Notice(21_000_000_000, "the guest rebooted")
    assert all_of([told_of, reset], [before, same]) == (before, told_of, reset)
    assert all_of([], [same]) == (same,)


def test_the_newest_notices_are_kept() -> None:
    many = [Notice(at, f"number {at}") for at in range(100)]
    assert newest(many) == tuple(many[-MOST:])


@pytest.mark.parametrize(
    ("event", "data", "words"),
    [
        ("RESET", {"guest": True, "reason": "guest-reset"}, "the guest rebooted"),
        ("RESET", {"reason": "subsystem-reset"}, "the guest was reset (subsystem-reset)"),
        ("RESET", {}, "the guest was reset (for no reason that it tells)"),
        ("GUEST_PANICKED", {"action": "run"}, "the guest's kernel panicked"),
        ("WATCHDOG", {"action": "reset"}, "the guest's watchdog fired: reset"),
        ("MEMORY_FAILURE", {"action": "inject"}, "a page of the guest's memory is bad: inject"),
        ("RESUME", {}, ""),
    ],
)
def test_what_an_event_says(event: str, data: dict[str, object], words: str) -> None:
    assert told(event, data) == words


async def test_all_who_ask_are_told_when_a_guest_stopped(host: Host, manager: VmManager) -> None:
    """The limit of the downtime asks, and so does who passes on what came for the guest since."""
    vm = await manager.run(SMALL)
    assert isinstance(vm.vmm, QemuVmm)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await vm.vmm.connect(theirs.fileno())
        await vm.vmm.send()
        async with asyncio.timeout(60):
            first, second = await asyncio.gather(vm.vmm.stopped(), vm.vmm.stopped())
            assert first == second == await vm.vmm.stopped()
        await vm.vmm.cancel()
    await manager.stop("vm0")
