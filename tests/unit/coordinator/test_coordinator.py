# SPDX-License-Identifier: GPL-2.0-or-later
"""The coordinator gives everything back, wherever a launch fails or is interrupted."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.coordinator.coordinator import Coordinator, Data, Undoing
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.outlook import next_step
from multiroot.coordinator.states import LAUNCH, UPDATE, Edge, Entry, State, replay
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.phases import Phases

STEPS = list(LAUNCH)


class Crash(BaseException):
    """The agent's process ending: nothing of ours may catch it."""


class FakeStep:
    """Notes what is done. `do` fails with `fail` or dies in a `crash`; `undo` is `stuck`, or `costs` a VM."""

    def __init__(
        self,
        name: str,
        log: list[str],
        fail: str = "",
        crash: bool = False,
        stuck: bool = False,
        costs: str = "",
    ) -> None:
        self.name, self.log, self.fail, self.crash, self.stuck = name, log, fail, crash, stuck
        self.costs = costs

    async def do(self, data: Mapping[str, Data]) -> Data:
        self.log.append(f"do {self.name}")
        if self.crash:
            raise Crash
        if self.fail:
            raise MultirootError(self.fail)
        return {"made": self.name}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        self.log.append(f"undo {self.name}")
        if self.stuck:
            raise MultirootError(f"{self.name} is stuck")
        if self.costs:
            how.lost.append(self.costs)


def coordinator(
    tmp_path: Path,
    log: list[str],
    guests_there: Callable[[], list[str]] = list,
    **special: FakeStep,
) -> Coordinator:
    steps = {name: special.get(name) or FakeStep(name, log) for name in [*STEPS, *UPDATE]}
    return Coordinator(Journal(tmp_path / "journal"), steps, Phases("test"), guests_there)


async def test_a_launch_goes_through_all_steps_and_release_undoes_them_backwards(tmp_path: Path) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log)
    data = await c.launch({"request": "r"})
    assert c.state is State.JOINED
    assert data["plan"] == {"request": "r", "made": "plan"}
    await c.release()
    assert log == [f"do {s}" for s in STEPS] + [f"undo {s}" for s in reversed(STEPS)]
    assert c.state is State.IDLE


@pytest.mark.parametrize("failing", STEPS)
async def test_a_failing_step_undoes_itself_and_all_before_it(tmp_path: Path, failing: str) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log, **{failing: FakeStep(failing, log, fail="no luck")})
    with pytest.raises(MultirootError, match="no luck"):
        await c.launch({})
    done = STEPS[: STEPS.index(failing) + 1]
    assert log == [f"do {s}" for s in done] + [f"undo {s}" for s in reversed(done)]
    assert c.state is State.IDLE
    log.clear()
    await coordinator(tmp_path, log).launch({})
    assert log == [f"do {s}" for s in STEPS]


@pytest.mark.parametrize("failing", STEPS)
async def test_a_root_that_was_started_and_is_to_be_kept_stays_until_it_is_released(
    tmp_path: Path, failing: str
) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log, **{failing: FakeStep(failing, log, fail="no luck")})
    with pytest.raises(MultirootError, match="no luck") as caught:
        await c.launch({}, keep=True)
    done = STEPS[: STEPS.index(failing) + 1]
    kept = failing in ("start", "join")
    assert log == [f"do {s}" for s in done] + ([] if kept else [f"undo {s}" for s in reversed(done)])
    assert ("`multiroot root dump new`" in caught.value.hint) is kept
    assert ("root dump" in next_step(c.standing, "", None)) is kept
    if kept:
        with pytest.raises(ConflictError, match="root release"):
            await c.launch({})
        await c.release()
    assert c.state is State.IDLE
    assert not c.begun


@pytest.mark.parametrize("crashing", STEPS)
async def test_a_restarted_coordinator_undoes_what_the_crash_left(tmp_path: Path, crashing: str) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log, **{crashing: FakeStep(crashing, log, crash=True)})
    with pytest.raises(Crash):
        await c.launch({})
    log.clear()
    again = coordinator(tmp_path, log)
    assert "took back" in await again.recover(alive=True)
    assert log == [f"undo {s}" for s in reversed(STEPS[: STEPS.index(crashing) + 1])]
    assert again.state is State.IDLE


async def test_a_restarted_coordinator_keeps_a_joined_root_only_while_it_lives(tmp_path: Path) -> None:
    log: list[str] = []
    await coordinator(tmp_path, log).launch({})
    again = coordinator(tmp_path, log)
    assert "still joined" in await again.recover(alive=True)
    assert again.state is State.JOINED
    assert "took back" in await again.recover(alive=False)
    assert again.state is State.IDLE


@pytest.mark.parametrize("crashing", UPDATE)
async def test_a_restarted_coordinator_takes_back_the_last_steps_alone(tmp_path: Path, crashing: str) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log, **{crashing: FakeStep(crashing, log, crash=True)})
    await c.update({}, "join")

    async def go_on() -> None:
        await c.update({}, "commit")
        await c.retire()

    with pytest.raises(Crash):
        await go_on()
    reached = c.state
    log.clear()
    again = coordinator(tmp_path, log)
    assert f"still {reached}" in await again.recover(alive=True)
    # What a handover has moved stays where it is.
    assert log == ([] if crashing == "handover" else [f"undo {crashing}"])
    assert again.state is reached


async def test_a_stuck_undo_is_named_and_can_be_tried_again(tmp_path: Path) -> None:
    log: list[str] = []
    stuck = FakeStep("offline", log, stuck=True)
    c = coordinator(tmp_path, log, offline=stuck)
    await c.launch({})
    with pytest.raises(MultirootError, match="undoing offline failed: offline is stuck"):
        await c.release()
    with pytest.raises(ConflictError):
        await c.launch({})
    stuck.stuck = False
    log.clear()
    await c.release()
    assert log == ["undo offline"]
    assert c.state is State.IDLE


async def test_an_update_stops_where_told_and_goes_on_from_there(tmp_path: Path) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log)
    assert await c.update({}, "load") is State.LOADED
    assert await c.update({}, "handover") is State.HANDED_OVER
    assert await c.update({}, "commit") is State.COMMITTED
    await c.retire()
    assert log == [f"do {s}" for s in [*STEPS, *UPDATE]]
    with pytest.raises(BadRequestError, match="no step 'lunch'"):
        await c.update({}, "lunch")


@pytest.mark.parametrize(
    ("until", "sees"),
    [("join", None), ("handover", {"no_canary": True}), ("retire", {"no_canary": True})],
)
async def test_the_join_is_told_of_the_handover_that_follows(
    tmp_path: Path, until: str, sees: Data | None
) -> None:
    seen: list[Data | None] = []

    class Join(FakeStep):
        async def do(self, data: Mapping[str, Data]) -> Data:
            seen.append(data.get("join", {}).get("then_handover"))
            return await super().do(data)

    c = coordinator(tmp_path, [], join=Join("join", []))
    await c.update({}, until, {"no_canary": True})
    assert seen == [sees]


@pytest.mark.parametrize("until", [*STEPS, "handover"])
async def test_an_abort_undoes_whatever_was_done(tmp_path: Path, until: str) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log)
    await c.update({}, until)
    done = [entry.removeprefix("do ") for entry in log]
    log.clear()
    await c.abort()
    # A new root that was started may own VMs, although none of the steps brought them there.
    first = ["undo handover"] if until in ("start", "join") else []
    assert log == [*first, *(f"undo {s}" for s in reversed(done))]
    assert c.state is State.IDLE


def aborted_meanwhile(
    abort: Callable[[], Coroutine[Any, Any, list[str]]], aborting: list[asyncio.Task[list[str]]]
) -> type[FakeStep]:
    """Steps that somebody aborts while they are being done; `aborting` gets the task of that."""

    class Slow(FakeStep):
        async def do(self, data: Mapping[str, Data]) -> Data:
            aborting.append(asyncio.create_task(abort()))
            await asyncio.sleep(0)
            return await super().do(data)

    return Slow


@pytest.mark.parametrize("during", ["load", "join", "handover", "commit"])
async def test_an_abort_ends_an_update_that_is_under_way(tmp_path: Path, during: str) -> None:
    """Whoever gave the command may be gone; it would go on to where nothing can be taken back."""
    log: list[str] = []
    aborting: list[asyncio.Task[list[str]]] = []

    Slow = aborted_meanwhile(lambda: c.abort(), aborting)
    c = coordinator(tmp_path, log, **{during: Slow(during, log)})
    if during == "commit":
        assert await c.update({}, "commit") is State.COMMITTED
        with pytest.raises(ConflictError, match="committed"):
            await aborting[0]
        return
    with pytest.raises(ConflictError, match="is being aborted"):
        await c.update({}, "retire")
    assert await aborting[0] == []
    assert c.state is State.IDLE
    done = [*STEPS, *UPDATE][: [*STEPS, *UPDATE].index(during) + 1]
    assert [line for line in log if line.startswith("do ")] == [f"do {name}" for name in done]
    assert await c.update({}, "load") is State.LOADED, "the next one is wanted"


@pytest.mark.parametrize("what", ["launch", "update"])
async def test_an_abort_waits_for_no_new_root(tmp_path: Path, what: str) -> None:
    """It may never join, and has minutes for that; all that was begun is undone at once."""
    log: list[str] = []
    waits = asyncio.Event()

    class Forever(FakeStep):
        async def do(self, data: Mapping[str, Data]) -> Data:
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                log.append("waits no longer")
            return {}

    c = coordinator(tmp_path, log, join=Forever("join", log))
    begun = asyncio.create_task(c.launch({}) if what == "launch" else c.update({}, "retire"))
    await waits.wait()
    assert await c.abort() == []
    with pytest.raises(ConflictError, match=f"the {what} is being aborted"):
        await begun
    assert log[-7:] == ["waits no longer", *(f"undo {name}" for name in reversed(STEPS))]
    assert c.state is State.IDLE


async def test_vms_that_wait_for_their_turn_stay_when_an_update_is_aborted(tmp_path: Path) -> None:
    """And what the update says is why, and not that they stay."""
    log: list[str] = []
    aborting: list[asyncio.Task[list[str]]] = []
    Slow = aborted_meanwhile(lambda: c.abort(), aborting)
    steps = {name: FakeStep(name, log) for name in [*STEPS, *UPDATE]}
    steps["handover"] = Slow("handover", log, fail="VMs stay")
    stay = lambda: log.append("stay")  # noqa: E731
    c = Coordinator(Journal(tmp_path / "journal"), steps, Phases("test"), list, stay)
    with pytest.raises(ConflictError, match="the update is being aborted"):
        await c.update({}, "retire")
    await aborting[0]
    assert log.count("stay") == 1
    assert log.index("stay") < log.index("do handover")
    assert c.state is State.IDLE


async def test_who_looks_is_told_that_it_is_being_aborted(tmp_path: Path) -> None:
    seen: list[str] = []
    aborting: list[asyncio.Task[list[str]]] = []

    class Looked(aborted_meanwhile(lambda: c.abort(), aborting)):  # type: ignore[misc]
        async def do(self, data: Mapping[str, Data]) -> Data:
            done: Data = await super().do(data)
            seen.append(next_step(c.standing, c.doing, None))
            return done

    c = coordinator(tmp_path, [], join=Looked("join", []))
    with pytest.raises(ConflictError, match="is being aborted"):
        await c.update({}, "retire")
    await aborting[0]
    assert seen == ["wait: it is updating, which is being aborted"]


@pytest.mark.parametrize("during", ["plan", "carve", "load", "join"])
async def test_an_abort_ends_a_launch_that_is_under_way(tmp_path: Path, during: str) -> None:
    """A new root that does not come up has much patience."""
    aborting: list[asyncio.Task[list[str]]] = []

    Slow = aborted_meanwhile(lambda: c.abort(), aborting)

    class Plan(Slow if during == "plan" else FakeStep):  # type: ignore[misc]
        async def do(self, data: Mapping[str, Data]) -> Data:
            return {**await super().do(data), "cpus": "2-3", "carve_size": 512}

    steps = {"plan": Plan("plan", []), **({} if during == "plan" else {during: Slow(during, [])})}
    c = coordinator(tmp_path, [], **steps)
    if during == "join":
        await c.launch({})
    else:
        with pytest.raises(ConflictError, match="the launch is being aborted"):
            await c.launch({})
    assert await aborting[0] == []
    assert c.state is State.IDLE
    # No more than what had been taken.
    taken = {"plan": {}, "carve": {"carve_size": 512}}.get(during, {"carve_size": 512, "cpus": "2-3"})
    assert c.given_back == taken


async def test_nothing_is_aborted_behind_a_vm_that_does_not_come_back(tmp_path: Path) -> None:
    log: list[str] = []
    stuck = FakeStep("handover", log, stuck=True)
    c = coordinator(tmp_path, log, handover=stuck, guests_there=lambda: ["web"])
    await c.update({}, "handover")
    log.clear()
    with pytest.raises(MultirootError, match="handover is stuck") as refusal:
        await c.abort()
    assert refusal.value.hint.endswith("again; `multiroot update abort --force` loses web")
    assert log == ["undo handover"]


async def test_nothing_that_a_living_new_root_needs_is_taken_from_it(tmp_path: Path) -> None:
    log: list[str] = []
    stuck = FakeStep("start", log, stuck=True)
    c = coordinator(tmp_path, log, start=stuck)
    await c.launch({})
    log.clear()
    with pytest.raises(MultirootError, match="undoing start failed: start is stuck"):
        await c.release()
    assert log == ["undo join", "undo start"]
    log.clear()
    stuck.stuck = False
    await c.abort()
    assert log == [f"undo {step}" for step in ("handover", "start", "load", "offline", "carve", "plan")]


async def test_a_release_is_refused_while_vms_are_there_unless_they_may_be_lost(tmp_path: Path) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log, start=FakeStep("start", log, costs="web"), guests_there=lambda: ["web"])
    await c.launch({})
    log.clear()
    with pytest.raises(ConflictError, match=r"the new root owns web .*multiroot update abort"):
        await c.release()
    assert (log, c.state) == ([], State.JOINED)
    assert await c.release(force=True) == ["web"]
    assert c.state is State.IDLE


@pytest.mark.parametrize("give_back", [Coordinator.abort, Coordinator.release])
async def test_giving_back_twice_is_as_once(
    tmp_path: Path, give_back: Callable[[Coordinator], Awaitable[list[str]]]
) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log)
    await c.launch({})
    assert await give_back(c) == []
    log.clear()
    assert await give_back(c) == []
    assert (log, c.state) == ([], State.IDLE)


async def test_a_committed_update_can_not_be_aborted_and_none_else_retires(tmp_path: Path) -> None:
    c = coordinator(tmp_path, [])
    with pytest.raises(ConflictError, match="not committed"):
        await c.retire()
    await c.update({}, "commit")
    with pytest.raises(ConflictError, match="committed"):
        await c.abort()


async def test_a_failed_handover_leaves_the_new_root_and_can_be_tried_again(tmp_path: Path) -> None:
    log: list[str] = []
    handover = FakeStep("handover", log, fail="no luck")
    c = coordinator(tmp_path, log, handover=handover)
    with pytest.raises(MultirootError, match="no luck"):
        await c.update({}, "commit")
    assert (c.state, c.error) == (State.JOINED, "no luck")
    handover.fail = ""
    assert await c.update({}, "commit") is State.COMMITTED


async def test_a_failed_retirement_undoes_itself_alone(tmp_path: Path) -> None:
    log: list[str] = []
    c = coordinator(tmp_path, log, retire=FakeStep("retire", log, fail="it clings"))
    await c.update({}, "commit")
    log.clear()
    with pytest.raises(MultirootError, match="it clings"):
        await c.retire()
    assert log == ["do retire", "undo retire"]
    assert (c.state, c.error) == (State.COMMITTED, "it clings")


async def test_of_an_error_that_nobody_expected_its_kind_is_told_and_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(FakeStep):
        async def do(self, data: Mapping[str, Data]) -> Data:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
            raise KeyError

    c = coordinator(tmp_path, [], retire=Odd("retire", []))
    await c.update({}, "commit")
    with pytest.raises(KeyError):
        await c.retire()
    assert c.error == "KeyError"
    told = [(record.message, record.exc_info and record.exc_info[0]) for record in caplog.records]
    assert told[:2] == [("retire failed", OSError), ("retire failed", KeyError)]


async def test_a_second_request_is_refused_while_one_runs(tmp_path: Path) -> None:
    c = coordinator(tmp_path, [])
    async with c.busy("launching a new root"):
        with pytest.raises(ConflictError, match="under way: launching"):
            await c.launch({})


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(Edge))))
def test_replay_never_forgets_a_step_that_may_have_effects(edges: list[tuple[str, Edge]]) -> None:
    standing = replay(Entry(step, edge, 0) for step, edge in edges)
    for step in STEPS:
        own = [edge for name, edge in edges if name == step and edge in (Edge.BEGIN, Edge.UNDONE)]
        assert (step in standing.begun) == bool(own and own[-1] is Edge.BEGIN)
