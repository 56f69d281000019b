# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that lives and does not answer holds up neither its agent nor other VMs. Its guest is not lost."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from multiroot.errors import ConflictError, MultirootError, WaitTimeoutError
from multiroot.processes import ProcessId
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.qemu.vmm import QemuVmm

from .harness import Root, assert_runs_only_in, hand, make_root, process_of, qmp_of, start_vm


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiroot.vm.qemu.qmp.ANSWER_S", 1)
    monkeypatch.setattr("multiroot.vm.instance.PATIENCE_S", 0.5)
    monkeypatch.setattr("multiroot.handoff.giver.TRANSFER_TIMEOUT_S", 2)


async def go_on(vm: Instance, process: ProcessId) -> None:
    """The process runs again, and all that was asked of it has been done."""
    os.kill(process.pid, signal.SIGCONT)
    async with asyncio.timeout(30):
        while vm.is_stuck:
            await asyncio.sleep(0.01)


async def test_stuck_while_the_handoff_is_prepared(roots: tuple[Root, Root]) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    os.kill(process_of(vm).pid, signal.SIGSTOP)
    with pytest.raises(WaitTimeoutError, match="the QEMU of vm0 does not answer") as caught:
        await hand(giver, taker)
    assert "multiroot vm stop vm0" in caught.value.hint
    with pytest.raises(ConflictError, match="the VMM of vm0 does not answer"):
        await hand(giver, taker)
    assert taker.manager.find("vm0") is None
    await go_on(vm, process_of(vm))
    await assert_runs_only_in(giver, taker)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_stuck_while_the_guest_stands_still(
    roots: tuple[Root, Root], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been told to send, and does not; nobody knows whether the guest stands still."""
    giver, taker = roots
    vm = await start_vm(giver)
    send = QemuVmm.send

    async def send_and_stop(vmm: QemuVmm) -> None:
        os.kill(process_of(vm).pid, signal.SIGSTOP)
        await send(vmm)

    monkeypatch.setattr(QemuVmm, "send", send_and_stop)
    with pytest.raises(MultirootError):
        await hand(giver, taker)
    assert vm.state is VmState.FROZEN
    with pytest.raises(ConflictError, match="does not answer"):
        await hand(giver, taker)
    await go_on(vm, process_of(vm))
    monkeypatch.setattr(QemuVmm, "send", send)
    await assert_runs_only_in(giver, taker)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_one_that_is_stuck_can_be_ended(roots: tuple[Root, Root]) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    os.kill(process_of(vm).pid, signal.SIGSTOP)
    with pytest.raises(WaitTimeoutError):
        await hand(giver, taker)
    await giver.manager.stop("vm0")
    assert giver.manager.find("vm0") is None
    await start_vm(giver)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


@pytest.mark.parametrize("then", ["goes on", "is ended", "was handed over"])
async def test_an_agent_finds_one_that_is_stuck(ground: Path, then: str) -> None:
    """It must not wait for it before it serves others."""
    first, taker = make_root(1, ground), make_root(2, ground)
    await first.serve()
    before = await start_vm(first)
    process = process_of(before)
    await qmp_of(before).disconnect()  # as when that agent ends
    os.kill(process.pid, signal.SIGSTOP)
    second = make_root(1, ground)
    async with asyncio.timeout(10):
        await second.manager.adopt()
    vm = second.manager.get("vm0")
    assert (vm.state, vm.is_stuck) == (VmState.FROZEN, True)
    if then == "is ended":
        await second.manager.stop("vm0")
        assert second.manager.find("vm0") is None
    elif then == "goes on":
        await go_on(vm, process)
        assert second.manager.running("vm0") is vm
    else:
        vm.word.take(vm.owner, 2)
        await go_on(vm, process)
        assert second.manager.get("vm0").state is VmState.HANDED
    for root in (first, second, taker):
        await root.close()
