# SPDX-License-Identifier: GPL-2.0-or-later
"""Which root a Handoff call goes to, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from multiroot.coordinator.adoption import Adoption, AdoptionContext
from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.coordinator_service import CoordinatorParts, CoordinatorService
from multiroot.coordinator.join import Console
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, Edge
from multiroot.errors import BadRequestError, PeerLostError
from multiroot.handoff.evacuation import Outcome
from multiroot.handoff.terms import Terms
from multiroot.phases import Phases
from multiroot.rpc.v1 import coordinator_pb2


async def handed_to(tmp_path: Path, to: str, *, joined: bool) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []

    async def hand_over(
        names: Sequence[str], to: str, terms: Terms, phases: Phases, done: Callable[[Outcome], None]
    ) -> list[Outcome]:
        calls.extend((name, to) for name in names)
        outcomes = [Outcome(name, coordinator_pb2.HandoffResult(name=name)) for name in names]
        for outcome in outcomes:
            done(outcome)
        return outcomes

    async def cancel(name: str, *, here: bool) -> coordinator_pb2.CancelHandoffResponse:
        pytest.fail("nobody cancels anything")

    async def no_plan(request: Any) -> str:
        pytest.fail("nobody asked for a plan")

    journal = Journal(tmp_path / "journal")
    for step in LAUNCH if joined else ():
        journal.write(step, Edge.BEGIN)
        journal.write(step, Edge.DONE)
    phases = Phases("root")

    async def nothing(*_: object) -> Any:
        pytest.fail("nobody told this root to take over")

    adoption = Adoption(
        AdoptionContext(phases, nothing, nothing, list, len, tmp_path / "adoption", tmp_path / "services")
    )
    service = CoordinatorService(
        CoordinatorParts(
            Coordinator(journal, {}, phases), adoption, phases, no_plan, hand_over, cancel, Console(), dict, 1
        )
    )
    request = coordinator_pb2.HandoffRequest(names=["web"], to=to)
    assert [event.handed_off.name async for event in service.Handoff(request, None)] == ["web"]
    return calls


async def test_the_new_root_is_the_default(tmp_path: Path) -> None:
    assert await handed_to(tmp_path, "", joined=True) == [("web", "new")]


async def test_no_new_root_no_handoff(tmp_path: Path) -> None:
    with pytest.raises(PeerLostError, match="no new root"):
        await handed_to(tmp_path, "new", joined=False)


async def test_the_way_back_needs_no_update_of_ones_own(tmp_path: Path) -> None:
    assert await handed_to(tmp_path, "old", joined=False) == [("web", "old")]


async def test_anything_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="'3'"):
        await handed_to(tmp_path, "3", joined=True)
