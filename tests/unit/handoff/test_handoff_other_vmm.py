# SPDX-License-Identifier: GPL-2.0-or-later
"""Giver and taker know VMMs by their protocol alone: another one than QEMU is handed over just the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from multiroot.arena.layout import Owner
from multiroot.errors import CommandError, ConflictError
from multiroot.vm.instance import VmState

from .harness import SMALL, Root, hand, make_root
from .memory_vmm import MemoryVmm, MemoryVmms


@pytest.fixture
def vmms() -> tuple[MemoryVmms, MemoryVmms]:
    return MemoryVmms(), MemoryVmms()


@pytest.fixture
async def roots(ground: Path, vmms: tuple[MemoryVmms, MemoryVmms]) -> AsyncIterator[tuple[Root, Root]]:
    giver, taker = (make_root(number, ground, made) for number, made in enumerate(vmms, 1))
    for root in (giver, taker):
        await root.serve()
    yield giver, taker
    for root in (giver, taker):
        await root.close()


def last(vmms: MemoryVmms) -> MemoryVmm:
    return vmms.made[-1]


async def test_there_and_back(roots: tuple[Root, Root], vmms: tuple[MemoryVmms, MemoryVmms]) -> None:
    giver, taker = roots
    await giver.manager.run(SMALL)
    result = await hand(giver, taker)
    first, second = (last(made) for made in vmms)
    assert (first.running, second.running) == (False, True)
    assert second.hinted == b"hints"
    assert result.device_state_bytes == len(vmms[0].state)
    assert 0 < result.stopped_ns <= result.resumed_ns
    assert first.calls == ["urgent True", "send", "unread", "read", "urgent False"]
    # The VMM comes first until its guest is at home.
    assert second.calls == ["urgent True", "unread", "read", "urgent False"]
    assert giver.manager.get("vm0").state is VmState.HANDED

    result = await hand(taker, giver)
    assert result.epoch == 3
    assert [vmm.running for made in vmms for vmm in made.made] == [False, True, False]


async def test_a_state_that_is_not_accepted(
    roots: tuple[Root, Root], vmms: tuple[MemoryVmms, MemoryVmms]
) -> None:
    giver, taker = roots
    vm = await giver.manager.run(SMALL)
    vmms[0].state = b"noise"
    with pytest.raises(CommandError, match="no state of mine"):
        await hand(giver, taker)
    first, second = (last(made) for made in vmms)
    assert (first.running, second.running) == (True, False)
    assert "cancel" in first.calls
    assert vm.owner == Owner(1, 2)
    assert taker.manager.find("vm0") is None


async def test_roots_with_different_vmms(
    roots: tuple[Root, Root], vmms: tuple[MemoryVmms, MemoryVmms]
) -> None:
    giver, taker = roots
    await giver.manager.run(SMALL)
    vmms[1].name = "other"
    with pytest.raises(ConflictError, match="the giver's VMM is memory, ours other"):
        await hand(giver, taker)
    assert last(vmms[0]).running
    assert vmms[1].made == []
