# SPDX-License-Identifier: GPL-2.0-or-later
"""A root whose update is committed takes no VM, whatever was on its way."""

from __future__ import annotations

from typing import Any

import pytest

from multiroot.errors import ConflictError, MultirootError
from multiroot.vm.instance import Instance

from .harness import Root, assert_runs_only_in, hand, no_qemu, start_vm

Roots = tuple[Root, Root]


async def test_a_vm_is_refused_and_goes_on_where_it_is(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    taker.manager.door.shut()
    with pytest.raises(ConflictError, match="root 2 takes no VM any more"):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)
    taker.manager.door.open()
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_a_vm_is_refused_that_was_let_in_before_and_is_not_prepared_yet(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker = roots
    await start_vm(giver)
    start = Instance.start

    async def start_and_shut(vm: Instance, **how: Any) -> None:
        await start(vm, **how)
        taker.manager.door.shut()
        await taker.taker.abort_all()

    monkeypatch.setattr(Instance, "start", start_and_shut)
    with pytest.raises(ConflictError, match="takes no VM any more"):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)


async def test_a_vm_that_waits_for_its_state_is_given_up(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker = roots
    vm = await start_vm(giver)
    send = vm.vmm.send

    async def shut_and_send() -> None:
        taker.manager.door.shut()
        await taker.taker.abort_all()
        await send()

    monkeypatch.setattr(vm.vmm, "send", shut_and_send)
    with pytest.raises(MultirootError):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)


async def test_a_vm_that_was_taken_already_is_seen(roots: Roots) -> None:
    giver, taker = roots
    await start_vm(giver)
    await hand(giver, taker)
    taker.manager.door.shut()
    await taker.taker.abort_all()
    assert taker.host.arena.vms_of(2) == ("vm0",)
    await assert_runs_only_in(taker, giver)
    await no_qemu(giver)
