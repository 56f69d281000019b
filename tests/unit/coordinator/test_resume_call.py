# SPDX-License-Identifier: GPL-2.0-or-later
"""Resume and GetState over the service: forward, back, or a refusal."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiroot.coordinator.adoption import Adoption, AdoptionContext
from multiroot.coordinator.coordinator import Coordinator, Data, Undoing
from multiroot.coordinator.coordinator_service import CoordinatorParts, CoordinatorService
from multiroot.coordinator.join import Console
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, UPDATE
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.phases import Phases
from multiroot.rpc.v1 import coordinator_pb2


class Step:
    """Works, unless `broken`; what it undoes costs the VM `costs`."""

    broken = False
    costs = ""

    async def do(self, data: Mapping[str, Data]) -> Data:
        if self.broken:
            raise MultirootError("no luck")
        return {}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        if self.broken:
            raise MultirootError("stuck")
        if self.costs:
            how.lost.append(self.costs)


class Served:
    """The service on a coordinator whose steps do nothing."""

    def __init__(self, top: Path) -> None:
        phases = Phases("root 1")
        self.steps = {name: Step() for name in (*LAUNCH, *UPDATE)}
        self.coordinator = Coordinator(Journal(top / "journal", "boot"), self.steps, phases)

        async def nothing(*_: object) -> Any:
            pytest.fail("nobody asked for that")

        self.adoption = Adoption(
            AdoptionContext(phases, nothing, nothing, list, len, top / "adoption", top / "services")
        )
        owners = {"web": 2, "db": 1}
        parts = CoordinatorParts(
            self.coordinator,
            self.adoption,
            phases,
            nothing,
            nothing,
            nothing,
            nothing,
            Console(),
            lambda: owners,
            1,
        )
        self.service = CoordinatorService(parts)

    async def resume(self, until: str = "") -> coordinator_pb2.Progress:
        request = coordinator_pb2.ResumeRequest(until=until)
        *_, last = [progress async for progress in self.service.Resume(request, None)]
        return last

    async def state(self) -> coordinator_pb2.CoordinatorState:
        return await self.service.GetState(coordinator_pb2.GetStateRequest(), None)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


async def test_nothing_is_resumed_where_nothing_was_begun(served: Served) -> None:
    with pytest.raises(ConflictError, match=r"no update is under way \(start one: "):
        await served.resume()


async def test_what_failed_is_told_and_goes_on_to_what_was_wanted(served: Served) -> None:
    served.steps["handover"].broken = True
    with pytest.raises(MultirootError, match="no luck"):
        await served.coordinator.update({"request": {}}, "handover")
    state = await served.state()
    assert (state.state, state.wanted, state.error) == ("joined", "handover", "no luck")
    assert state.next.startswith("`multiroot update resume` goes on to handover; `multiroot update abort`")
    assert [(each.step, each.edge) for each in state.steps][-2:] == [("join", "done"), ("handover", "failed")]
    assert [(owner.name, owner.root) for owner in state.owners] == [("db", 1), ("web", 2)]
    served.steps["handover"].broken = False
    assert (await served.resume()).updated.state == "handed-over"
    with pytest.raises(ConflictError, match="the update is handed-over, and no more was asked for"):
        await served.resume()
    assert (await served.resume("commit")).updated.state == "committed"
    assert (await served.state()).next == "`multiroot update resume --until retire` goes on to the end"


async def test_an_update_that_has_no_room_for_its_canary_begins_nothing(served: Served) -> None:
    def refuse() -> None:
        raise ConflictError("no room")

    served.service._parts = replace(served.service._parts, check_canary=refuse)
    for until in ("", "handover"):
        with pytest.raises(ConflictError, match="no room"):
            await update(served, coordinator_pb2.UpdateRequest(until=until))
    assert served.coordinator.begun == ()
    await update(served, coordinator_pb2.UpdateRequest(until="join"))
    # It goes on, and tries then.
    await update(served, coordinator_pb2.UpdateRequest(until="handover"))


async def test_and_one_without_a_canary_needs_no_room(served: Served) -> None:
    def refuse() -> None:
        raise ConflictError("no room")

    served.service._parts = replace(served.service._parts, check_canary=refuse)
    await update(served, coordinator_pb2.UpdateRequest(until="handover", no_canary=True))


async def update(served: Served, request: coordinator_pb2.UpdateRequest) -> None:
    async for _ in served.service.Update(request, None):
        pass


async def test_what_fails_when_its_caller_has_gone_is_told_in_the_log_in_one_line(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    class Slow(Step):
        async def do(self, data: Mapping[str, Data]) -> Data:
            begun.set()
            await gone.wait()
            raise MultirootError("no luck")

    served.steps["load"] = Slow()

    async def call() -> None:
        async for _ in served.service.Update(coordinator_pb2.UpdateRequest(until="load"), None):
            pass

    caller = asyncio.create_task(call())
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gone.set()
    async with asyncio.timeout(20):
        while served.coordinator.doing:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    said = [record.getMessage() for record in caplog.records if "no luck" in record.getMessage()]
    assert said == ["it ended when nobody listened any more: no luck"]
    assert "never retrieved" not in caplog.text


async def test_an_update_that_goes_on_keeps_what_it_was_told_of_the_canary(served: Served) -> None:
    request = coordinator_pb2.UpdateRequest(until="handover", no_canary=True)
    served.steps["handover"].broken = True
    with pytest.raises(MultirootError, match="no luck"):
        _ = [progress async for progress in served.service.Update(request, None)]
    assert served.coordinator.data["handover"]["no_canary"] is True
    with pytest.raises(MultirootError, match="no luck"):
        await served.resume()
    served.steps["handover"].broken = False
    assert (await served.resume()).updated.state == "handed-over"
    assert served.coordinator.data["handover"]["no_canary"] is True


async def test_an_update_goes_on_without_the_canary_when_that_is_said_then(served: Served) -> None:
    served.steps["handover"].broken = True
    with pytest.raises(MultirootError, match="no luck"):
        _ = [
            progress
            async for progress in served.service.Update(
                coordinator_pb2.UpdateRequest(until="handover", verify=True), None
            )
        ]
    assert served.coordinator.data["handover"]["no_canary"] is False
    served.steps["handover"].broken = False
    request = coordinator_pb2.ResumeRequest(no_canary=True, downtime_limit_ms=600)
    *_, last = [progress async for progress in served.service.Resume(request, None)]
    assert last.updated.state == "handed-over"
    told = served.coordinator.data["handover"]
    assert (told["no_canary"], told["verify"], told["devices"]) == (True, True, [])
    assert (told["terms"]["downtime_ms"], told["terms"]["group"]) == (600, 1)


async def test_what_was_being_taken_back_is_taken_back_to_the_end(served: Served) -> None:
    await served.coordinator.update({"request": {}}, "join")
    served.steps["offline"].costs = "web"
    served.steps["carve"].broken = True
    with pytest.raises(MultirootError, match="undoing carve failed: stuck"):
        await served.coordinator.abort()
    state = await served.state()
    assert (state.state, state.error, state.lost) == ("idle", "stuck", ["web"])
    assert state.next.startswith("`multiroot update resume` finishes taking it back")
    served.steps["carve"].broken = False
    result = (await served.resume()).released
    assert (result.idle, list(result.lost)) == (False, [])
    assert (await served.state()).next == ""


async def test_a_damaged_request_to_take_over_is_in_the_state(served: Served, tmp_path: Path) -> None:
    (tmp_path / "adoption").write_text('{"verify": tr')
    served.adoption.resume()
    state = await served.state()
    assert (state.state, state.taking_over) == ("idle", "failed")
    assert state.taking_over_error.startswith(f"{tmp_path / 'adoption'} is damaged: ")


async def test_a_busy_coordinator_says_with_what(served: Served) -> None:
    async with served.coordinator.busy("handing web over"):
        assert (await served.state()).next == "wait: it is handing web over"


async def test_who_goes_first_has_to_be_a_vm_before_anything_is_begun(served: Served) -> None:
    """One that is in the new root already may be named: an update that goes on finds some there."""
    unknown = coordinator_pb2.UpdateRequest(terms=coordinator_pb2.HandoffTerms(first=["web", "dbb"]))
    with pytest.raises(BadRequestError, match="no VM named 'dbb'") as caught:
        _ = [progress async for progress in served.service.Update(unknown, None)]
    assert caught.value.hint == "there are: db, web"
    assert not served.coordinator.begun
    known = coordinator_pb2.HandoffTerms(first=["web", "db"])
    request = coordinator_pb2.UpdateRequest(until="handover", terms=known)
    *_, last = [progress async for progress in served.service.Update(request, None)]
    assert last.updated.state == "handed-over"


async def test_an_update_keeps_no_root_that_does_not_come_up(served: Served) -> None:
    request = coordinator_pb2.UpdateRequest(launch=coordinator_pb2.LaunchRequest(keep=True))
    with pytest.raises(BadRequestError, match=r"takes its new root back \(`multiroot root launch --keep"):
        _ = [progress async for progress in served.service.Update(request, None)]
    assert not served.coordinator.begun


async def test_nothing_is_resumed_while_something_is_under_way(served: Served) -> None:
    """Also no word of what would be possible: it can't be done now."""
    await served.coordinator.update({"request": {}}, "join")
    async with served.coordinator.busy("launching a new root"):
        with pytest.raises(ConflictError, match="an update is under way: launching a new root") as refused:
            await served.resume()
    assert "`multiroot update abort` takes it back" in refused.value.hint


async def test_a_handoff_that_is_under_way_is_not_called_an_update(served: Served) -> None:
    await served.coordinator.update({"request": {}}, "join")
    async with served.coordinator.busy("handing web over"):
        with pytest.raises(ConflictError, match="a handoff is under way: handing web over") as refused:
            await served.resume()
    assert "`multiroot handoff cancel`" in refused.value.hint


async def test_nobody_is_told_to_abort_what_no_abort_ends(served: Served) -> None:
    async with served.coordinator.busy("aborting the update"):
        with pytest.raises(ConflictError, match="an update is under way: aborting the update") as refused:
            served.coordinator.check_idle()
    assert "multiroot update abort" not in refused.value.hint
