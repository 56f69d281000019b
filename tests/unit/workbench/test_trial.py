# SPDX-License-Identifier: GPL-2.0-or-later
"""Which steps a trial takes, what becomes of one that does not hold, and what is our own fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiroot.errors import BadRequestError, ConflictError, MultirootError, PeerLostError
from multiroot.lab.boot import BootError
from multiroot.lab.lab import Options
from multiroot.phases import Phases
from multiroot.workbench import evidence
from multiroot.workbench import trial as trials
from multiroot.workbench.carry import Streams
from multiroot.workbench.evidence import GUEST, GUEST_BOOT
from multiroot.workbench.reached import NEW, Started
from multiroot.workbench.trial import BOOT, LAUNCH, LIVE, THERE, UPDATE, Player, Trial, planned
from multiroot.workbench.trial_report import Step
from multiroot.workbench.wanted import Until, Wanted, Where
from multiroot.workbench.watch import RootLostError

WANTED = Wanted(lab=Options(), new="6.12", command=("true",))
NOWHERE = Streams(None, bytes, bytes)


@pytest.mark.parametrize(
    ("until", "where", "steps"),
    [
        (Until.BOOT, Where.OLD, (BOOT, LIVE)),
        (Until.BOOT, Where.VM, (BOOT, GUEST_BOOT, LIVE)),
        (Until.LAUNCH, Where.NEW, (BOOT, LAUNCH, LIVE)),
        (Until.HANDOVER, Where.NEW, (BOOT, GUEST_BOOT, LAUNCH, THERE, LIVE)),
        (Until.UPDATE, Where.NEW, (BOOT, GUEST_BOOT, UPDATE, LIVE)),
    ],
)
def test_the_steps_that_are_planned(until: Until, where: Where, steps: tuple[str, ...]) -> None:
    assert planned(Wanted(lab=Options(), new="6.12", command=("true",), until=until, where=where)) == steps


def test_without_a_command_all_that_can_be_done_is() -> None:
    steps = planned(Wanted(lab=Options(), new="6.12"))
    assert len(steps) == 8
    assert LIVE not in steps


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A lab whose boot ends as the test says; `downs` counts how often it was ended."""
    made = SimpleNamespace(boot=None, final=False, downs=0, said="")
    machine = SimpleNamespace(name="try", release="6.12.1", kernel="6.12", state=tmp_path)

    def start(*_: object, **__: object) -> Any:
        if made.boot:
            (tmp_path / "console-old.log").write_text(made.said)
            raise made.boot
        return made

    def load(name: str) -> Any:
        return SimpleNamespace(attempts=[SimpleNamespace(final=made.final)], resets=lambda: 0)

    monkeypatch.setattr(trials.lab, "prepare", lambda options, phases: (machine, None))
    monkeypatch.setattr(trials.lab, "start", start)
    monkeypatch.setattr(trials.lab, "own_kernels", lambda options: [])
    monkeypatch.setattr(evidence.state, "load", load)
    return made


def test_a_kernel_that_does_not_boot_is_bad_and_tells_why(world: Any) -> None:
    world.boot = BootError("lab 'try' did not boot at the only attempt: console: Kernel panic")
    world.said = "1234567 [    1.000000] Kernel panic - not syncing: no init\n"
    seen = trials.run(WANTED, Phases("workstation"), NOWHERE)
    assert [(each.name, each.held) for each in seen.steps] == [(BOOT, False)]
    assert [str(each.kind) for each in seen.findings] == ["panic"]
    assert seen.code() == 1
    assert seen.listened == ["old"]


def test_an_emulator_that_refuses_is_our_fault(world: Any) -> None:
    world.boot, world.final = BootError("lab 'try' cannot boot: QEMU exited with 1"), True
    with pytest.raises(BadRequestError, match="cannot boot"):
        trials.run(WANTED, Phases("workstation"), NOWHERE)


def player(tmp_path: Path, wanted: Wanted = WANTED) -> Player:
    machine: Any = SimpleNamespace(name="try", state=tmp_path)
    kernels = {"6.12": SimpleNamespace(slowness=1.0), "7.x": SimpleNamespace(slowness=6.0)}
    built: Any = SimpleNamespace(kernels=kernels)
    return Player(wanted, Trial(planned(wanted)), Phases("workstation"), NOWHERE, machine, built)


@pytest.mark.parametrize(
    ("old", "new", "said", "seconds"),
    [
        ("6.12", "6.12", 0, 180),
        ("6.12", "7.x", 0, 1080),
        ("7.x", "6.12", 30, 30),
    ],
)
def test_a_root_that_looks_for_bugs_in_itself_may_take_longer_to_come_up(
    tmp_path: Path, old: str, new: str, said: int, seconds: int
) -> None:
    wanted = Wanted(lab=Options(kernel=old), new=new, join_timeout_s=said)
    assert player(tmp_path, wanted)._join_timeout_s == seconds


@pytest.mark.parametrize("error", [BadRequestError("no"), ConflictError("no")])
def test_what_is_our_fault_is_raised(tmp_path: Path, error: MultirootError) -> None:
    one = player(tmp_path)

    def take() -> str:
        raise error

    with pytest.raises(type(error)):
        one._step(LAUNCH, take)
    assert one.trial.steps == []


@pytest.mark.parametrize(("error", "lost"), [(PeerLostError("x"), False), (RootLostError("x"), True)])
def test_a_step_that_did_not_hold_is_the_last(tmp_path: Path, error: MultirootError, lost: bool) -> None:
    one = player(tmp_path)

    def take() -> str:
        raise error

    with pytest.raises(trials._Bad):
        one._step(LAUNCH, take)
    assert [(each.name, each.held, each.seen) for each in one.trial.steps] == [(LAUNCH, False, "x")]
    assert one.reached.lost is lost


@pytest.mark.parametrize(("lost", "held"), [(True, True), (False, False), (False, True)])
def test_traces_of_a_new_root_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool, held: bool
) -> None:
    """Also of one that an update gave up, which nobody else has noticed to be lost."""
    one = player(tmp_path)
    one.reached.lab = SimpleNamespace(state=SimpleNamespace(alive=lambda: True))  # type: ignore[assignment]
    one.reached.lost = lost
    one.trial.steps.append(Step(LAUNCH, held, "", 1.0))
    monkeypatch.setattr(evidence.look, "consoles", lambda folder: [])
    monkeypatch.setattr(evidence.state, "load", lambda name: SimpleNamespace(resets=lambda: 0))
    monkeypatch.setattr(evidence.Evidence, "_ask_the_living", lambda self: [])
    monkeypatch.setattr(evidence.look, "backtraces", lambda lab: ["CPU 0: init (pid 1)"])
    one.evidence.collect()
    assert one.trial.backtraces == ([] if held and not lost else ["CPU 0: init (pid 1)"])
    one.evidence.keep_logs(tmp_path / "logs")
    assert (tmp_path / "logs" / evidence.BACKTRACES).exists() is (lost or not held)


def test_a_crash_of_which_no_traces_can_be_had_is_one_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lab: object) -> list[str]:
        raise PeerLostError("the old root is gone, too")

    one = player(tmp_path)
    one.reached.lab = SimpleNamespace(state=SimpleNamespace(alive=lambda: True))  # type: ignore[assignment]
    one.reached.lost, one.reached.second = True, Started(NEW, "new", "6.12")
    monkeypatch.setattr(evidence.look, "consoles", lambda folder: [])
    monkeypatch.setattr(evidence.state, "load", lambda name: SimpleNamespace(resets=lambda: 0))
    monkeypatch.setattr(evidence.look, "backtraces", refuse)
    one.evidence.collect()
    assert one.trial.backtraces == []


def test_what_runs_in_a_guest_is_watched_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest is heeded from its start on, and asked as long as something runs in it; roots always are."""
    said: list[object] = []

    class Watched:
        def heed(self, name: str) -> None:
            said.append(name)

        @contextmanager
        def asking_guest(self, reach: object, patience_s: float) -> Iterator[None]:
            said.append(patience_s)
            yield
            said.append("over")

        def limit(self, *_: object) -> Any:
            return nullcontext()

    def run_there(*_: object) -> int:
        said.append("ran")
        return 0

    monkeypatch.setattr(trials.carry, "carry_in", lambda reach, words, carried: words)
    monkeypatch.setattr(trials.carry, "run_there", run_there)
    watch: Any = Watched()
    agents: Any = SimpleNamespace(run=lambda definition: None)
    for where, seen in ((Where.NEW, ["ran"]), (Where.VM, [40.0, "ran", "over"])):
        wanted = Wanted(lab=Options(), new="6.12", command=("true",), where=where)
        one = player(tmp_path, wanted)
        one.reached.lab = SimpleNamespace(channel=bytes)  # type: ignore[assignment]
        monkeypatch.setattr(one, "_await_guest", lambda: None)
        one._start_guest(watch, agents)
        one._command(watch)
        assert said == [GUEST, *seen]
        said.clear()
