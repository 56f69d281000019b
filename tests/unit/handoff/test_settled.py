# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows when the guest runs in the taker: the giver hears of it first, and the network is told."""

from __future__ import annotations

import asyncio

import pytest

from multiroot.arena.layout import Owner
from multiroot.handoff.giver import attempt
from multiroot.handoff.incoming import Incoming, Taken
from multiroot.handoff.takeover import Takeover
from multiroot.handoff.terms import USUAL
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.vm.instance import Instance

from .harness import Root, clashes, hand, no_qemu, start_vm, target

Roots = tuple[Root, Root]


@pytest.mark.parametrize("lost", [False, True])
async def test_the_giver_hears_that_the_guest_runs_before_the_network_does(
    roots: Roots, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """What came for it meanwhile is sent on by then. A taker that is lost later still has the guest."""
    giver, taker = roots
    await start_vm(giver)
    vm = giver.manager.get("vm0")
    announced = asyncio.Event()
    settle_in = Takeover._settle_in

    async def announce(takeover: Takeover, vm: Instance) -> list[Phase]:
        await announced.wait()
        if lost:
            await taker.server.stop(None)
        return await settle_in(takeover, vm)

    monkeypatch.setattr(Takeover, "_settle_in", announce)
    phases = Phases("root 1")
    with attempt(giver.manager, "vm0", target(taker), phases, USUAL) as going:
        await going.prepare()
        handing = asyncio.create_task(going.transfer())
        await going.taken.wait()
        assert not handing.done()
        assert vm.active, "more may come for it, so its VMM does not end"
        announced.set()
        result = await handing
    assert result.resumed_ns
    assert (PhaseName.ANNOUNCE in [phase.name for phase in phases.finished]) is not lost
    await no_qemu(giver)


async def test_lost_answer(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """The taker runs the guest, but the giver never hears of it; the arena tells."""
    giver, taker = roots
    await start_vm(giver)
    run = Takeover.run

    async def then_lose_it(takeover: Takeover, incoming: Incoming) -> Taken:
        taken = await run(takeover, incoming)
        await taker.server.stop(None)
        return taken

    monkeypatch.setattr(Takeover, "run", then_lose_it)
    result = await hand(giver, taker)
    assert (result.epoch, result.resumed_ns) == (2, 0)
    assert result.device_state_bytes > 0
    assert giver.manager.get("vm0").owner == Owner(2, 2)
    await no_qemu(giver)
    vm = taker.manager.running("vm0")
    assert clashes(vm) == 0
