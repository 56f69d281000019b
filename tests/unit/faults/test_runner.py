# SPDX-License-Identifier: GPL-2.0-or-later
"""What the runner makes of what it sees, on a ground that is made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.errors import CommandError, PeerLostError
from multiroot.failpoints import Action, FailPoint, Order
from multiroot.faults import runner as runner_module
from multiroot.faults.fault import GIVER, Aimed, Fate, Fault, Outcome, pause
from multiroot.faults.ground import Ground, Sight, until
from multiroot.faults.runner import Runner
from multiroot.vm.ticks import Report, Stretch, Tick

EXIT = Fault("f", "step", "what", orders=(Aimed(GIVER, Order(FailPoint.GIVER_READY, Action.EXIT)),))


class FakeGround:
    """The VM is in root `place`; every handoff moves it, but the first does what is said."""

    def __init__(self, first: Fate = Fate.STAYS, **wrong: Any) -> None:
        self.first: Fate | None = first
        self.place = "old"
        self.wrong = wrong
        self.log: list[str] = []
        self.ticks = {"old": [1], "new": list[int]()}
        self.lab = SimpleNamespace(state=SimpleNamespace(resets=lambda: 0))
        self.standings = 0

    def until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        until(condition, timeout_s, what, lambda: None)

    def ready(self, *, joined: bool) -> None:
        self.log.append(f"ready {joined}")
        if self.place != "old":
            self.place = "old"
            self.ticks["old"] = [self.ticks["new"][-1] + 1]

    def standing(self, *, joined: bool) -> dict[str, Any]:
        self.standings += 1
        return {"taps": self.wrong.get("taps", 1) if self.standings > 1 else 1}

    def arm(self, root: str, order: Order) -> None:
        self.log.append(f"arm {root} {order.point}")

    def disarm(self, roots: Sequence[str]) -> None:
        self.log.append(" ".join(["disarm", *roots]))

    def reached(self, root: str, point: str, timeout_s: float) -> None:
        self.log.append(f"reached {point}")

    def status(self, root: str, *, wait: bool = False) -> Any:
        return SimpleNamespace(root=1 if root == "old" else 2)

    def versions(self) -> dict[str, str]:
        return {"kernel": "1.0"}

    def child_state(self) -> str:
        return "ready"

    def see(self, root: str, name: str = "") -> Sight:
        if self.place == "nowhere":
            return Sight("failed" if root == "old" else "", 1, 1, 0)
        owner = 1 if self.place == "old" else 2
        extra = self.wrong.get("copies", 0)
        return Sight("running", owner, 1, 1) if root == self.place else Sight("", 0, 0, extra)

    def hand_over(self, to: str, name: str = "", terms: object = None) -> None:
        first, self.first = self.first, None
        if first is None or first is Fate.GOES:
            last = self.ticks[self.place][-1]
            self.place = to
            self.ticks[to] = [last + 1 + self.wrong.get("lost", 0)]
        elif first is Fate.LOST:
            self.place = "nowhere"
        if first is not None:
            raise CommandError("as ordered")

    def stretch(self, root: str, more: int = 0, name: str = "") -> Stretch:
        seen = self.ticks[root]
        seen += range(seen[-1] + 1, seen[-1] + 1 + more) if seen else []
        report = Report(seen[-1] if seen else 0, "boot", 0, 0, 1, 0, 0)
        return Stretch(b"", 0, tuple(Tick(each, each, report) for each in seen), b"")

    def stop_vm(self, root: str, name: str = "") -> None:
        self.place, self.ticks = "old", {"old": [1], "new": []}
        self.see = lambda root, name="": Sight("", 0, 0, 0)  # type: ignore[method-assign]

    def down(self) -> None:
        self.log.append("down")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "SETTLED_S", 0.7)


def run(ground: FakeGround, fault: Fault = EXIT) -> Outcome:
    (outcome,) = Runner(cast(Ground, ground), lambda _: None).run([fault])
    return outcome


def test_a_fault_that_holds() -> None:
    ground = FakeGround()
    outcome = run(ground)
    assert outcome.problems == []
    assert (outcome.fate, outcome.said) == (Fate.STAYS, "as ordered")
    assert ground.place == "old"
    assert ground.log == [
        "ready True",
        "arm old giver.ready",
        "reached giver.ready",
        "disarm old",
        "ready True",
    ]


def test_a_strike_comes_when_the_point_is_reached_and_before_it_is_released() -> None:
    ground = FakeGround()
    fault = Fault(
        "f",
        "step",
        "what",
        orders=(pause(GIVER, FailPoint.GIVER_READY),),
        strike=lambda _: ground.log.append("strike"),
        after=lambda _: ground.log.append("mend"),
    )
    assert run(ground, fault).held
    assert ground.log[2:6] == ["reached giver.ready", "strike", "disarm old", "mend"]


@pytest.mark.parametrize(
    ("ground", "problem"),
    [
        (FakeGround(Fate.GOES), "the VM runs in the new root"),
        (FakeGround(taps=2), "taps: 2, before 1"),
        (FakeGround(lost=3), "handed to the new root again: 3 ticks missing"),
        (FakeGround(copies=1), "the VM's fate was not settled"),
    ],
)
def test_what_does_not_hold_is_said_and_the_next_fault_gets_another_machine(
    ground: FakeGround, problem: str
) -> None:
    outcome = run(ground)
    assert not outcome.held
    assert problem in "; ".join(outcome.problems)
    assert ground.log[-1] == "down"


def test_nobody_waits_for_a_machine_that_has_ended() -> None:
    def unanswered() -> bool:
        raise PeerLostError("the old root's agent does not answer")

    def ended() -> None:
        raise PeerLostError("the lab machine has ended (guest-reset)")

    with pytest.raises(PeerLostError, match="guest-reset"):
        until(unanswered, 60, "nothing", ended)
