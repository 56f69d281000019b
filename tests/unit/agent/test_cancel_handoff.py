# SPDX-License-Identifier: GPL-2.0-or-later
"""What `handoff cancel` says of each VM, and whom it asks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.agent.handoffs import Handoffs
from multiroot.errors import CommandError, PeerLostError
from multiroot.handoff.evacuation import Leg, Outcome
from multiroot.root.peers import Role
from multiroot.watch.signal import Signal

ME, NEW = 1, 2


class World:
    """This root, two VMs on their way, and a new root whose agent does not answer."""

    def __init__(self) -> None:
        self.owners = {"web": ME, "db": ME}
        self.asked: list[str] = []
        root = SimpleNamespace(
            me=SimpleNamespace(root=ME),
            clock=lambda: 0,
            news=Signal(),
            peers=SimpleNamespace(get={Role.CHILD: SimpleNamespace(ready=True)}.get),
            neighbours=SimpleNamespace(channel=self._channel),
        )
        self.handoffs = Handoffs(cast(Any, root), cast(Any, SimpleNamespace(owners=lambda: self.owners)))
        self.legs = {name: Leg() for name in self.owners}
        self.handoffs._under_way |= self.legs

    def _channel(self, name: str) -> Any:
        self.asked.append(name)
        raise PeerLostError("the new root's agent does not answer")

    async def settle(self, name: str, outcome: Outcome | None) -> None:
        """As soon as it is cancelled."""
        await self.legs[name].cancelled.wait()
        self.legs[name].outcome = outcome
        self.legs[name].settled.set()


async def test_the_owner_word_says_who_stays(caplog: pytest.LogCaptureFixture) -> None:
    """One that failed after it was taken does not stay, nor one whose handoff ended by a bug there."""
    world = World()
    world.owners = {"web": NEW, "db": NEW}
    failed = Outcome("web", error=CommandError("no tap"))
    settling = asyncio.gather(world.settle("web", failed), world.settle("db", None))
    answer = await world.handoffs.cancel("", here=True)
    await settling
    assert (list(answer.stay), list(answer.gone)) == ([], ["web", "db"])


async def test_one_that_is_found_here_is_asked_for_nowhere_else() -> None:
    """A handoff is cancelled because the new root hangs: it must not be waited for again."""
    world = World()
    settling = asyncio.create_task(world.settle("web", None))
    answer = await world.handoffs.cancel("web", here=False)
    await settling
    assert list(answer.stay) == ["web"]
    assert not world.legs["db"].cancelled.is_set()
    assert not world.asked


async def test_what_stays_is_told_though_the_new_root_does_not_answer() -> None:
    world = World()
    settling = asyncio.gather(world.settle("web", None), world.settle("db", None))
    answer = await world.handoffs.cancel("", here=False)
    await settling
    assert list(answer.stay) == ["web", "db"]
    assert world.asked == ["new"]


async def test_when_nothing_was_under_way_here_its_silence_is_the_answer() -> None:
    world = World()
    with pytest.raises(PeerLostError):
        await world.handoffs.cancel("mail", here=False)


async def test_those_stay_whose_turn_has_not_come() -> None:
    world = World()
    world.legs["web"].turn.set()
    world.handoffs.stay()
    assert {name: leg.cancelled.is_set() for name, leg in world.legs.items()} == {"web": False, "db": True}
