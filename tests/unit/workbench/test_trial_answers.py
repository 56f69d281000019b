# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels of a trial are asked what they are tainted by and what they leak, and when: one that has
ended says nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiroot.errors import MultirootError, PeerLostError
from multiroot.lab.lab import Options
from multiroot.phases import Phases
from multiroot.verdict.findings import Source
from multiroot.workbench import evidence
from multiroot.workbench import trial as trials
from multiroot.workbench.carry import Streams
from multiroot.workbench.evidence import GUEST
from multiroot.workbench.look import Facts, Image, Scan
from multiroot.workbench.reached import AFTER_NEXT, AFTER_UPDATE, NEW, OLD, THE_GUEST
from multiroot.workbench.trial import LIVE, Player, Trial
from multiroot.workbench.wanted import Until, Wanted, Where
from multiroot.workbench.watch import GuestLostError

WARNED = 1 << 9


class World:
    """A machine on which roots come and go. `said` is what happened, in order; `tainted` are roots by
    their numbers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[object, ...]] = []
        self.roots = {"old": (1, "old", "6.1")}  # number, console, kernel by the name that reaches it
        self.tainted: set[int] = set()
        self.state = SimpleNamespace(alive=lambda: True, ending=str, attempts=[])
        self.agent_address = ""
        self.fails = ""
        self.guest_answers = True
        self._banner("old", "6.1")

    def _banner(self, console: str, kernel: str) -> None:
        with (self.folder / f"console-{console}.log").open("a") as log:
            log.write(f"1234567 [    0.000000] Linux version {kernel}\n")

    def start(self, name: str, kernel: str) -> None:
        _, there, _ = self.roots["old"]
        console = {"old": "new", "new": "old"}[there]
        self._banner(console, kernel)
        self.roots[name] = (1 + max(each for each, _, _ in self.roots.values()), console, kernel)

    def facts(self, root: str) -> Facts:
        if root == GUEST:
            return self._of_guest()
        number, _, kernel = self.roots[root]
        return Facts(kernel, WARNED if number in self.tainted else 0, {}, "")

    def _of_guest(self) -> Facts:
        if not self.guest_answers:
            raise PeerLostError("it hung up")
        return Facts("6.12", WARNED, {}, "")

    def leaks(self, root: str, source: Source) -> Scan:
        if root == GUEST:
            return Scan()
        number, console, kernel = self.roots[root]
        assert (source.where, source.release) == (console, kernel)
        self.said.append(("asked", number, source.boot))
        return Scan()

    def launch_as(self, request: Any, *_: object) -> Any:
        self.start("new", request.kernel)
        return SimpleNamespace(root=2, ready_ns=1, start_ns=0)

    def release(self, _show: object) -> None:
        self.said.append(("released", self.roots.pop("new")[0]))

    def update(self, request: Any) -> Any:
        return lambda: self._update(request.launch.kernel)

    def _update(self, kernel: str) -> None:
        self.said.append(("retired", self.roots["old"][0]))
        self.start("old", kernel)

    def down(self) -> None:
        self.said.append(("down",))

    def wait(self, *_: object, **__: object) -> None:
        if self.fails:
            raise MultirootError(self.fails)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    machine = SimpleNamespace(name="try", release="6.1", kernel="6.1", state=tmp_path)
    built = SimpleNamespace(kernels={each: SimpleNamespace(slowness=1.0) for each in ("6.1", "6.12")})
    stub = SimpleNamespace(GetState=lambda *_, **__: SimpleNamespace(root=1), Update=made.update)
    watch = SimpleNamespace(ask=lambda *_: None, forget=lambda _: None)

    def image(*_: object) -> Image:
        return Image("", "", "")

    def replaced(target: object, name: str, value: Callable[..., object]) -> None:
        monkeypatch.setattr(target, name, value)

    replaced(trials.lab, "prepare", lambda *_: (machine, built))
    replaced(trials.lab, "start", lambda *_, **__: made)
    replaced(trials.state, "load", lambda _: SimpleNamespace(attempts=[], resets=lambda: 0))
    replaced(trials, "Watch", lambda *_: nullcontext(watch))
    replaced(trials, "Agents", lambda *_: nullcontext(made))
    replaced(trials.client, "connect", lambda *_, **__: nullcontext(None))
    replaced(trials.coordinator_pb2_grpc, "CoordinatorServiceStub", lambda _: stub)
    replaced(trials, "follow", lambda begun, *_, **__: begun())
    replaced(trials.successor, "wait", made.wait)
    replaced(trials.Player, "_start_guest", start_guest)
    for step in ("_hand_over", "_command"):
        replaced(trials.Player, step, lambda *_: "")
    replaced(evidence.look, "facts", made.facts)
    replaced(evidence.look, "leaks", made.leaks)
    replaced(evidence.look, "in_root", lambda _, name: name)
    replaced(evidence.look, "in_guest", lambda reach: GUEST)
    replaced(evidence.look, "guest_console", lambda *_: b"")
    replaced(evidence.look, "backtraces", lambda _: [])
    for ran in ("ran_old", "ran_new"):
        replaced(evidence.look, ran, image)
    replaced(evidence.Evidence, "_asked", image)
    replaced(evidence.lab, "own_kernels", lambda _: [])
    return made


def start_guest(player: Player, *_: object) -> str:
    if player.wanted.guest_takes_commands:
        player.reached.reach_guest = player._reach_guest
    return ""


def played(**more: Any) -> Trial:
    wanted = Wanted(lab=Options(kernel="6.1"), new="6.12", **more)
    return trials.run(wanted, Phases("workstation"), Streams(None, bytes, bytes))


def test_the_standard_job_asks_each_kernel_before_it_ends(world: World) -> None:
    seen = played()
    assert seen.code() == 0
    assert world.said == [
        ("asked", 2, 1),
        ("released", 2),
        ("asked", 1, 1),
        ("retired", 1),
        ("asked", 2, 2),
        ("retired", 2),
        ("asked", 3, 2),
        ("down",),
    ]
    told = {each.called: (str(each.source), each.facts.release) for each in seen.answers.values()}
    assert told == {
        NEW: ("new (6.12)", "6.12"),
        OLD: ("old (6.1)", "6.1"),
        AFTER_UPDATE: ("new (6.12), kernel 2 there", "6.12"),
        AFTER_NEXT: ("old (6.1), kernel 2 there", "6.1"),
    }
    claims = [each.claim for each in seen.points()]
    for root in told:
        assert claims.count(f"kmemleak finds nothing in {root}") == 1
        assert claims.count(f"{root} ran the kernel that was asked for") == 1


@pytest.mark.parametrize(("until", "numbers"), [(Until.UPDATE, [1, 2]), (Until.LAUNCH, [1, 2])])
def test_both_roots_are_asked_of_a_command(world: World, until: Until, numbers: list[int]) -> None:
    seen = played(command=("true",), until=until)
    assert [each[1] for each in world.said if each[0] == "asked"] == numbers
    assert list(seen.answers) == [OLD, NEW]


def test_the_taint_of_a_root_that_was_released_is_found(world: World) -> None:
    world.tainted = {2}
    first, *_ = played().findings
    assert (first.kind, str(first.source)) == ("taint", "new (6.12)")


def test_nobody_is_asked_when_it_is_not_known_who_answers(world: World) -> None:
    world.fails = "root 2 did not get everything"
    seen = played(command=("true",), until=Until.UPDATE)
    assert [each for each in world.said if each[0] == "asked"] == [("asked", 1, 1)]
    assert (list(seen.answers), seen.code()) == ([OLD], 1)


def test_a_guest_that_takes_commands_tells_of_itself(world: World) -> None:
    seen = played(command=("true",), where=Where.VM)
    (taint,) = seen.findings
    assert (taint.kind, str(taint.source)) == ("taint", "vm1 (6.12)")
    outcomes = {each.claim: str(each.outcome) for each in seen.points()}
    assert outcomes["kmemleak finds nothing in the guest"] == "held"
    assert outcomes["the kernel of vm1 reports no trouble"] == "FAILED"


def test_a_guest_that_a_command_has_ended_is_no_trouble(world: World) -> None:
    world.guest_answers = False
    seen = played(command=("poweroff",), where=Where.VM)
    assert seen.code() == 0
    (why,) = [each.seen for each in seen.points() if each.claim == "kmemleak finds nothing in the guest"]
    assert why == "it does not answer: it hung up"


def test_a_guest_that_is_lost_is_not_asked_and_the_roots_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*_: object) -> str:
        raise GuestLostError("the guest's kernel panicked, its console says")

    monkeypatch.setattr(trials.Player, "_command", command)
    seen = played(command=("true",), where=Where.VM)
    assert (seen.steps[-1].name, seen.steps[-1].seen) == (
        LIVE,
        "the guest's kernel panicked, its console says",
    )
    assert (list(seen.answers), seen.code()) == ([OLD, NEW], 1)
    assert THE_GUEST not in seen.answers
