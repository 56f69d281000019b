# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent drops is gone soon."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.agent import handoffs, memory
from multiroot.agent.handoffs import Handoffs
from multiroot.handoff.terms import USUAL
from multiroot.phases import Phases
from multiroot.root.peers import Role
from multiroot.watch.signal import Signal


class Knot:
    """Garbage that points at itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nobody_looks_by_itself() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


async def test_what_a_handoff_drops_is_gone_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[weakref.ref[Knot]] = []

    class Evacuation:
        legs: dict[str, Any] = {}  # noqa: RUF012 - stays empty

        def __init__(self, *_: object) -> None: ...

        async def run(self) -> list[Any]:
            dropped.append(weakref.ref(Knot()))
            return []

    monkeypatch.setattr(handoffs, "Evacuation", Evacuation)
    new = SimpleNamespace(gone=False, root=2, role=Role.CHILD)
    root = SimpleNamespace(
        me=SimpleNamespace(root=1),
        clock=lambda: 0,
        news=Signal(),
        peers=SimpleNamespace(by_name=lambda name: new),
        neighbours=SimpleNamespace(channel=lambda name: None),
    )
    moving = Handoffs(cast(Any, root), cast(Any, SimpleNamespace(manager=None)))
    await moving.hand_over([], "new", USUAL, Phases("old root"))
    assert [each() for each in dropped] == [None]


def test_an_agent_looks_through_nothing_that_it_began_with() -> None:
    before = Knot()
    memory.begin()
    after = Knot()
    looked_through = gc.get_objects()
    assert not any(each is before for each in looked_through)
    assert any(each is after for each in looked_through)
    gone = weakref.ref(after)
    del after, looked_through
    memory.tidy()
    assert gone() is None
