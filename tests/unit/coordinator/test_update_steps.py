# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps behind a launch: every VM goes over, and comes back when the update is aborted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from multiroot.coordinator.coordinator import Coordinator, Data, Undoing
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import LAUNCH, State
from multiroot.coordinator.update import UpdateContext, make_update_steps
from multiroot.errors import ConflictError, MultirootError
from multiroot.handoff.evacuation import Outcome
from multiroot.handoff.terms import USUAL, Order, Terms
from multiroot.launch import retire
from multiroot.phases import Phase, Phases
from multiroot.rpc.v1 import coordinator_pb2
from multiroot.storage.filesystems import Filesystem


class Roots:
    """VMs by the root that owns them; `stuck` names the VM that cannot be moved."""

    def __init__(self, *names: str, stuck: str = "", ends: str = "") -> None:
        self.here, self.there, self.stuck = list(names), list[str](), stuck
        self.ends = ends  # somebody ends it while it is to be moved
        self.terms: Terms | None = None  # of the last handover
        self.starting = ""  # is started in the new root while VMs come back
        self.arriving = ""  # comes in just before the door is shut
        self.is_shut = False
        self.canaries = list[str]()  # what was done with canaries
        self.canary_fails = self.canary_stays = False

    async def canary(self, terms: Terms) -> None:
        self.canaries.append("tried")
        if self.canary_fails:
            raise MultirootError("the canary did not come back")

    async def remove_canary(self) -> None:
        self.canaries.append("removed")
        if self.canary_stays:
            raise MultirootError("the canary did not end")

    async def shut(self) -> None:
        if self.arriving:
            self.here.append(self.arriving)
        self.is_shut = True

    def open(self) -> None:
        self.is_shut = False

    async def over(self, names: Sequence[str], terms: Terms) -> list[Outcome]:
        self.terms = terms
        outcomes = []
        for name in names:
            try:
                self._move(name, self.here, self.there)
                outcomes.append(Outcome(name, coordinator_pb2.HandoffResult(name=name)))
            except MultirootError as error:
                outcomes.append(Outcome(name, error=error))
        return outcomes

    async def back(self, names: Sequence[str]) -> None:
        for name in names:
            if name != self.stuck:
                self._move(name, self.there, self.here)
        if self.ends in names:
            self.there.remove(self.ends)
        if self.stuck in names:
            raise MultirootError(f"{self.stuck} cannot be moved")
        if self.starting:
            self.there.append(self.starting)
            self.starting = ""

    def _move(self, name: str, giver: list[str], taker: list[str]) -> None:
        if name == self.ends:
            giver.remove(name)
        if name == self.stuck:
            raise MultirootError(f"{name} cannot be moved")
        giver.remove(name)
        taker.append(name)


class Nothing:
    """A launch step that is not looked at here."""

    async def do(self, data: object) -> Data:
        return {}

    async def undo(self, data: object, how: Undoing) -> None:
        """Nothing was done."""


async def no_announcement(
    phases: list[Phase], verify: bool, devices: Sequence[str], left: Sequence[Filesystem]
) -> None:
    pytest.fail("nobody retires here")


def context_of(roots: Roots, tmp_path: Path, staying: dict[str, str] | None = None) -> UpdateContext:
    return UpdateContext(
        here=lambda: list(roots.here),
        there=lambda: list(roots.there),
        hand_over=roots.over,
        hand_back=roots.back,
        canary=roots.canary,
        remove_canary=roots.remove_canary,
        announce=no_announcement,
        phases=Phases("root 1"),
        root=1,
        unbound=tmp_path / "unbound",
        left_disks=tmp_path / "left-disks",
        settle_disks=tuple,
        stop_disks=tuple,
        come_to_disks=len,
        shut_door=roots.shut,
        open_door=roots.open,
        staying=lambda: staying or {},
    )


def coordinator_of(roots: Roots, tmp_path: Path, staying: dict[str, str] | None = None) -> Coordinator:
    context = context_of(roots, tmp_path, staying)
    steps = {**dict.fromkeys(LAUNCH, Nothing()), **make_update_steps(context)}
    return Coordinator(Journal(tmp_path / "journal"), steps, context.phases)


async def test_all_vms_go_over_and_an_abort_brings_them_back(tmp_path: Path) -> None:
    roots = Roots("a", "b", "c")
    coordinator = coordinator_of(roots, tmp_path)
    assert await coordinator.update({"request": {}}, "handover") is State.HANDED_OVER
    assert (roots.here, roots.there) == ([], ["a", "b", "c"])
    await coordinator.abort()
    assert (roots.here, roots.there) == (["a", "b", "c"], [])
    assert coordinator.state is State.IDLE


async def test_a_root_retires_that_was_told_nothing_of_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a launch, handoffs, and `update resume --until retire`."""
    done: list[object] = []
    for name in ("services", "end_processes", "unbind_all", "end_kernel"):
        monkeypatch.setattr(retire, name, lambda *words, name=name: done.append(name))

    async def announce(
        phases: list[Phase], verify: bool, devices: Sequence[str], left: Sequence[Filesystem]
    ) -> None:
        done.append(("announce", verify, tuple(devices), tuple(left)))

    context = context_of(Roots(), tmp_path)
    context.announce = announce
    await make_update_steps(context)["retire"].do({})
    assert done == ["services", "end_processes", "unbind_all", ("announce", False, (), ()), "end_kernel"]


async def test_what_serves_disks_ends_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests' requests wait from then on; all that takes time comes before."""
    done: list[object] = []
    monkeypatch.setattr(retire, "services", lambda *_: done.append("services"))
    monkeypatch.setattr(retire, "end_processes", lambda root, keep: done.append(("end all but", *keep)))
    for name in ("unbind_all", "end_kernel"):
        monkeypatch.setattr(retire, name, lambda *words, name=name: done.append(name))

    async def announce(*_: object) -> None:
        done.append("announce")

    def stop(kept: Sequence[Filesystem]) -> Sequence[Filesystem]:
        done.append("stop")
        return kept

    context = context_of(Roots(), tmp_path)
    context.announce, context.settle_disks, context.stop_disks = announce, lambda: [7, 8], stop
    await make_update_steps(context)["retire"].do({})
    assert done == ["services", ("end all but", 7, 8), "stop", "unbind_all", "announce", "end_kernel"]


async def test_an_update_keeps_its_terms_when_it_goes_on(tmp_path: Path) -> None:
    roots = Roots("a", "b", stuck="b")
    coordinator = coordinator_of(roots, tmp_path)
    terms = Terms(downtime_ms=70, group=2, preparing=3, order=Order.LARGEST, first=("b", "a"))
    told = {"terms": terms.to_dict()}
    with pytest.raises(MultirootError, match="1 of 2 VMs stay: b: b cannot be moved"):
        await coordinator.update({"request": {}}, "handover", told)
    assert roots.terms == terms
    roots.stuck = ""
    again = coordinator_of(roots, tmp_path)  # the agent was restarted
    assert again.standing.wanted
    await again.update({}, *again.standing.wanted)
    assert roots.terms == replace(terms, first=("b",)), "a has gone"


async def test_an_abort_brings_back_a_vm_that_was_started_there_meanwhile(tmp_path: Path) -> None:
    roots = Roots("a")
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.update({"request": {}}, "handover")
    roots.starting = "late"
    await coordinator.abort()
    assert (roots.here, roots.there) == (["a", "late"], [])


async def test_a_vm_that_cannot_go_stays_and_the_next_call_goes_on_from_there(tmp_path: Path) -> None:
    roots = Roots("a", "b", "c", stuck="b")
    coordinator = coordinator_of(roots, tmp_path)
    with pytest.raises(MultirootError, match="b cannot be moved"):
        await coordinator.update({"request": {}}, "handover")
    assert (roots.here, roots.there) == (["b"], ["a", "c"])
    assert coordinator.state is State.JOINED
    roots.stuck = ""
    assert await coordinator.update({"request": {}}, "commit") is State.COMMITTED
    assert (roots.here, roots.there) == ([], ["a", "c", "b"])


async def test_a_vm_that_is_ended_meanwhile_is_in_nobodys_way(tmp_path: Path) -> None:
    """Neither there nor back: what the handoff of it says is no reason to stop."""
    roots = Roots("a", "b", stuck="b", ends="b")
    coordinator = coordinator_of(roots, tmp_path)
    assert await coordinator.update({"request": {}}, "handover") is State.HANDED_OVER
    assert (roots.here, roots.there) == ([], ["a"])
    roots.there.append("b")
    await coordinator.abort()
    assert (roots.here, roots.there) == (["a"], [])
    assert coordinator.state is State.IDLE


async def test_nothing_is_committed_while_this_root_owns_a_vm(tmp_path: Path) -> None:
    roots = Roots("a")
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.update({"request": {}}, "handover")
    roots.here.append("late")
    with pytest.raises(ConflictError, match="this root still owns late"):
        await coordinator.update({"request": {}}, "commit")
    assert coordinator.state is State.HANDED_OVER


async def test_the_door_is_shut_before_anyone_looks_and_opened_when_nothing_is_committed(
    tmp_path: Path,
) -> None:
    roots = Roots("a")
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.update({"request": {}}, "handover")
    roots.arriving = "late"
    with pytest.raises(ConflictError, match="this root still owns late"):
        await coordinator.update({"request": {}}, "commit")
    assert not roots.is_shut
    roots.arriving = ""
    roots.here.remove("late")
    await coordinator.update({"request": {}}, "commit")
    assert roots.is_shut


async def test_a_root_that_got_a_vm_after_its_commit_does_not_retire(tmp_path: Path) -> None:
    roots = Roots()
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.update({"request": {}}, "commit")
    roots.here.append("late")
    with pytest.raises(ConflictError, match="this root still owns late"):
        await coordinator.retire()
    assert coordinator.state is State.COMMITTED


async def test_nothing_is_committed_while_a_vm_needs_a_card_of_this_root(tmp_path: Path) -> None:
    staying = {"0000:01:10.0": "0000:01:00.0"}
    coordinator = coordinator_of(Roots("a"), tmp_path, staying)
    await coordinator.update({"request": {}}, "handover")
    with pytest.raises(ConflictError, match=r"01:10\.0, which a VM owns, is a part of 0000:01:00\.0"):
        await coordinator.update({"request": {}}, "commit")
    staying.clear()
    assert await coordinator.update({"request": {}}, "commit") is State.COMMITTED


async def test_an_abort_stops_where_a_vm_cannot_come_back_and_the_new_root_lives_on(tmp_path: Path) -> None:
    roots = Roots("a", "b")
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.update({"request": {}}, "handover")
    roots.stuck = "a"
    with pytest.raises(MultirootError, match="undoing handover failed: a cannot be moved"):
        await coordinator.abort()
    assert "a" in roots.there
    assert coordinator.state is not State.IDLE
    await coordinator.abort(force=True)
    assert (roots.here, roots.there) == (["b"], ["a"])
    assert coordinator.state is State.IDLE


async def test_an_abort_brings_back_what_was_handed_over_by_hand(tmp_path: Path) -> None:
    roots = Roots("a", "b")
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.launch({"request": {}})
    await roots.over(["a"], USUAL)
    roots.stuck = "a"
    with pytest.raises(MultirootError, match="a cannot be moved"):
        await coordinator.abort()
    assert coordinator.state is State.JOINED, "the new root lives on, for it has a VM"
    roots.stuck = ""
    await coordinator.abort()
    assert (roots.here, roots.there) == (["b", "a"], [])
    assert coordinator.state is State.IDLE


async def test_what_is_committed_cannot_be_aborted(tmp_path: Path) -> None:
    coordinator = coordinator_of(Roots("a"), tmp_path)
    await coordinator.update({"request": {}}, "commit")
    with pytest.raises(ConflictError, match="is committed"):
        await coordinator.abort()


async def test_no_vm_is_touched_when_the_canary_fails_and_the_next_call_tries_again(tmp_path: Path) -> None:
    roots = Roots("a", "b")
    coordinator = coordinator_of(roots, tmp_path)
    roots.canary_fails = True
    with pytest.raises(MultirootError, match="the canary did not come back"):
        await coordinator.update({"request": {}}, "handover")
    assert (roots.here, roots.there) == (["a", "b"], [])
    assert coordinator.state is State.JOINED
    assert coordinator.way_on() == "handover"
    roots.canary_fails = False
    assert await coordinator.update({}, "handover") is State.HANDED_OVER
    assert (roots.canaries, roots.there) == (["tried", "tried"], ["a", "b"])


async def test_the_canary_is_tried_where_no_vm_is_to_go(tmp_path: Path) -> None:
    roots = Roots()
    await coordinator_of(roots, tmp_path).update({"request": {}}, "handover")
    assert roots.canaries == ["tried"]


async def test_an_update_that_was_told_so_goes_without_a_canary_also_when_it_goes_on(tmp_path: Path) -> None:
    roots = Roots("a", "b", stuck="b")
    told = {"no_canary": True}
    with pytest.raises(MultirootError, match="b cannot be moved"):
        await coordinator_of(roots, tmp_path).update({"request": {}}, "handover", told)
    roots.stuck = ""
    # As `update resume` does it in the next agent.
    again = coordinator_of(roots, tmp_path)
    assert again.standing.wanted == ("handover", told)
    await again.update({}, again.way_on(), again.standing.wanted[1])
    assert roots.there == ["a", "b"]
    assert roots.canaries == ["removed", "removed"]
    await again.update({}, "commit")


async def test_an_abort_ends_a_canary_that_was_left_but_does_not_insist(tmp_path: Path) -> None:
    roots = Roots("a")
    coordinator = coordinator_of(roots, tmp_path)
    await coordinator.update({"request": {}}, "handover")
    roots.canary_stays = True
    await coordinator.abort()
    assert (roots.here, roots.canaries) == (["a"], ["tried", "removed"])
    assert coordinator.state is State.IDLE


async def test_no_vm_goes_when_an_update_is_aborted_while_the_canary_does(tmp_path: Path) -> None:
    roots = Roots("web")

    def aborted() -> None:
        raise ConflictError("the update is being aborted")

    context = replace(context_of(roots, tmp_path), check_wanted=aborted)
    with pytest.raises(ConflictError, match="is being aborted"):
        await make_update_steps(context)["handover"].do({})
    assert (roots.canaries, roots.here, roots.there) == (["tried"], ["web"], [])
