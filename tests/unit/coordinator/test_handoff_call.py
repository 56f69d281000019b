# SPDX-License-Identifier: GPL-2.0-or-later
"""Which root a Handoff call goes to, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from multiroot.arena.layout import CANARY
from multiroot.coordinator.adoption import Adoption, AdoptionContext
from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.coordinator_service import CoordinatorParts, CoordinatorService
from multiroot.coordinator.join import Console
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, Edge
from multiroot.errors import BadRequestError, ConflictError, PeerLostError
from multiroot.handoff.evacuation import Outcome
from multiroot.handoff.terms import Terms
from multiroot.phases import Phases
from multiroot.rpc.v1 import coordinator_pb2

Calls = list[tuple[str, str]]


def make_service(tmp_path: Path, *, joined: bool) -> tuple[CoordinatorService, Calls]:
    """The service of root 1, and the calls that it made: VM and root. The VM "bad" can't be prepared."""
    calls: Calls = []

    async def hand_over(
        names: Sequence[str], to: str, terms: Terms, phases: Phases, done: Callable[[Outcome], None]
    ) -> list[Outcome]:
        calls.extend((name, to) for name in names)
        outcomes = [Outcome(name, coordinator_pb2.HandoffResult(name=name)) for name in names]
        for outcome in outcomes:
            done(outcome)
        return outcomes

    async def expect(
        names: Sequence[str], to: str, phases: Phases, at_once: int, *, undo: bool
    ) -> list[Outcome]:
        calls.extend((f"{name} {at_once}{' undone' if undo else ''}", to) for name in names)
        refused = ConflictError("it has a device of its own")
        return [] if undo else [Outcome(name, error=refused if name == "bad" else None) for name in names]

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
            Coordinator(journal, {}, phases),
            adoption,
            phases,
            no_plan,
            hand_over,
            expect,
            cancel,
            Console(),
            lambda: {"web": 1, "db": 1, "far": 2, CANARY: 1},
            1,
        )
    )
    return service, calls


async def handed_to(tmp_path: Path, to: str, *, joined: bool) -> Calls:
    service, calls = make_service(tmp_path, joined=joined)
    request = coordinator_pb2.HandoffRequest(names=["web"], to=to)
    assert [event.handed_off.name async for event in service.Handoff(request, None)] == ["web"]
    return calls


async def prepared(
    tmp_path: Path, *names: str, joined: bool = True, **fields: Any
) -> tuple[list[str], Calls]:
    service, calls = make_service(tmp_path, joined=joined)
    request = coordinator_pb2.PrepareHandoffRequest(names=names, **fields)
    *_, last = [event async for event in service.PrepareHandoff(request, None)]
    return list(last.prepared.names), calls


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


async def test_the_other_root_gets_ready_for_vms(tmp_path: Path) -> None:
    assert await prepared(tmp_path, "web") == (["web"], [("web 4", "new")])


async def test_it_gets_ready_for_all_of_this_root(tmp_path: Path) -> None:
    names, calls = await prepared(tmp_path, all=True, to="old", preparing=2)
    assert names == ["db", "web"]
    assert calls == [("db 2", "old"), ("web 2", "old")]


async def test_what_waits_can_be_ended(tmp_path: Path) -> None:
    assert await prepared(tmp_path, "web", undo=True) == ([], [("web 4 undone", "new")])


async def test_who_cannot_be_prepared_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="1 of 2 VMs stay: bad: it has a device of its own"):
        await prepared(tmp_path, "web", "bad")


async def test_nothing_is_prepared_without_a_new_root_or_a_name(tmp_path: Path) -> None:
    with pytest.raises(PeerLostError, match="no new root"):
        await prepared(tmp_path / "a", "web", joined=False)
    with pytest.raises(BadRequestError, match="which VMs"):
        await prepared(tmp_path / "b")
