# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent dies in the middle of a handoff, a new one starts: one copy of the guest runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from multiroot.errors import MultirootError

from .harness import Root, assert_runs_only_in, hand, make_root, seen_across, start_vm

PACKAGE = Path(__file__).parents[1]


async def start_agent(role: str, folder: Path, moment: str) -> asyncio.subprocess.Process:
    argv = [sys.executable, "-m", "handoff.agent", role, str(folder), moment]
    path = os.pathsep.join([str(PACKAGE), str(PACKAGE.parents[1])])
    return await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, "PYTHONPATH": path}, stdout=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def new_agent(number: int, folder: Path) -> AsyncIterator[Root]:
    """An agent that finds what one before it left behind."""
    root = make_root(number, folder)
    await root.manager.adopt()
    await root.serve()
    yield root
    await root.close()


async def test_givers_agent_dies_before_the_state_is_out(ground: Path) -> None:
    async with new_agent(2, ground) as taker:
        agent = await start_agent("give", ground, "prepared")
        await agent.wait()
        async with new_agent(1, ground) as giver:
            await taker.taker.close()  # its preparation expires
            await assert_runs_only_in(giver, taker)
            await hand(giver, taker)
            await assert_runs_only_in(taker, giver)


async def test_givers_agent_dies_while_qemu_writes(ground: Path) -> None:
    """The whole state may have passed the agent by then or not: the owner word says who was first."""
    async with new_agent(2, ground) as taker:
        agent = await start_agent("give", ground, "stopped")
        await agent.wait()
        await taker.taker.close()
        async with new_agent(1, ground) as giver:
            owner = giver.host.arena.find("vm0").owner.root
            winner, loser = (giver, taker) if owner == 1 else (taker, giver)
            await assert_runs_only_in(winner, loser)


@pytest.mark.parametrize("moment", ["nothing-passed-on", "trailer-not-sent"])
async def test_givers_agent_dies_before_it_has_passed_all_on(ground: Path, moment: str) -> None:
    """Its QEMU has written the whole state; the taker, who lacks a part of it, must not run the guest."""
    async with new_agent(2, ground) as taker:
        agent = await start_agent("give", ground, moment)
        await agent.wait()
        async with new_agent(1, ground) as giver:
            await assert_runs_only_in(giver, taker)
            await hand(giver, taker)
            await assert_runs_only_in(taker, giver)


async def test_givers_agent_dies_when_the_taker_runs_it(ground: Path) -> None:
    async with new_agent(2, ground) as taker:
        agent = await start_agent("give", ground, "all-sent")
        await agent.wait()
        async with new_agent(1, ground) as giver:
            await assert_runs_only_in(taker, giver)
            assert (await seen_across(giver, taker)).unbroken


@pytest.mark.parametrize(
    ("moment", "runs_in_taker"),
    [("arriving", False), ("loaded", False), ("owned", True), ("resumed", True)],
)
async def test_takers_agent_dies(ground: Path, moment: str, runs_in_taker: bool) -> None:
    async with new_agent(1, ground) as giver:
        await start_vm(giver)
        peer = make_root(2, ground)
        agent = await start_agent("take", ground, moment)
        assert agent.stdout
        await agent.stdout.readline()
        if runs_in_taker:
            assert (await hand(giver, peer)).epoch == 2
        else:
            with pytest.raises(MultirootError):
                await hand(giver, peer)
        await agent.wait()
        async with new_agent(2, ground) as taker:
            winner, loser = (taker, giver) if runs_in_taker else (giver, taker)
            await assert_runs_only_in(winner, loser)
            assert (await seen_across(*([giver, taker] if runs_in_taker else [giver]))).unbroken
