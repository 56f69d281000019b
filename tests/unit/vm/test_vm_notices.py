# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a guest by itself is told, and kept."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import suppress
from unittest.mock import ANY

import pytest
from vm.conftest import SMALL, SetFaults, qmp_of

from multiroot.errors import ConflictError
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.host import Host
from multiroot.vm.instance import VmState
from multiroot.vm.lifecycle import Lifecycle
from multiroot.vm.manager import VmManager
from multiroot.vm.notices import MOST, Notice, newest
from multiroot.vm.qemu.notices import told
from multiroot.vm.qemu.vmm import QemuVmm
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
