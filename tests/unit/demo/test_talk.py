# SPDX-License-Identifier: GPL-2.0-or-later
"""Playing a talk: texts, keys, deeds and rests in order; a step that fails is named. The lab is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.demo import guests, talk
from multiroot.demo.talk import Options, Player
from multiroot.demo.talk_script import Part, Talk
from multiroot.errors import ConflictError, MultirootError
from multiroot.lab import lab as labs
from multiroot.phases import Phases
from multiroot.rpc import client
from multiroot.watch.facts import Facts, MachineFacts, RootFacts, RootState, TickFacts, VmFacts


class Stagehand:
    """An audience that sees `facts`, and all that was done and said."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.facts = Facts(machine=MachineFacts(resets=0))
        self.counter = 0

    @contextmanager
    def open(self, machine: object) -> Iterator[None]:
        yield

    def say(self, text: str) -> None:
        self.log.append(f"say {text}")

    def ask(self, text: str, pause: Any) -> None:
        self.log.append(f"ask {text}")
        pause()

    def wait(self, condition: Any, what: str, timeout_s: float = 0) -> Facts:
        for _ in range(3):
            self.counter += talk.GOES_ON
            self.facts.vms["vm1"] = VmFacts("running", 1, 1, ticks=TickFacts(self.counter, 1))
            if condition(self.facts):
                return self.facts
        raise ConflictError(what)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stagehand:
    made = Stagehand()
    machine = SimpleNamespace(agent_address=client.Address("none"), down=lambda: made.log.append("down"))
    monkeypatch.setattr(labs, "up", lambda options, phases: machine)
    monkeypatch.setattr(guests, "boot", lambda channel, wanted, ticks, phases: 0)

    def do(player: Player, part: Part) -> int:
        if part.kernel == "broken":
            raise ConflictError("no room", "make some")
        made.log.append(f"do {part.do}")
        return 1 if part.do == "launch" else 0

    monkeypatch.setattr(Player, "do", do)
    return made


def play(stage: Stagehand, parts: list[Part], key: Any = None, *, keep: bool = False) -> list[talk.Took]:
    options = Options(Talk(step=tuple(parts)), labs.Options(), keep)
    return talk.play(options, Phases("workstation"), cast(Any, stage), key)


def test_text_key_deed_rest(stage: Stagehand) -> None:
    parts = [
        Part(say="a", pause=True),
        Part(do="launch", say="b"),
        Part(do="abort", say="c", wait=0.01, pause=True),
    ]
    took = play(stage, parts, lambda: stage.log.append("key"))
    assert stage.log == ["ask a", "key", "do ", "say b", "do launch", "ask c", "key", "do abort", "down"]
    assert [(each.number, each.retries) for each in took] == [(1, 0), (2, 1), (3, 0)]
    assert took[2].waited_s >= 0.01


def test_a_rehearsal_waits_for_nobody_and_the_lab_may_stay(stage: Stagehand) -> None:
    play(stage, [Part(say="a", pause=True)], None, keep=True)
    assert stage.log == ["say a", "do "]


def test_a_step_that_fails_is_named_and_the_lab_ends(stage: Stagehand) -> None:
    with pytest.raises(ConflictError, match=r"step 2 \(launch\): no room \(make some\)"):
        play(stage, [Part(say="a"), Part(do="launch", kernel="broken")])
    assert stage.log[-1] == "down"


def test_a_talk_in_which_the_machine_was_reset_has_failed(stage: Stagehand) -> None:
    stage.facts.machine.resets = 1
    with pytest.raises(MultirootError, match="the machine was reset 1 times"):
        play(stage, [Part(say="a")])


def test_a_new_root_that_has_vms_is_not_crashed(stage: Stagehand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    class WithVms:
        def __init__(self, address: object) -> None: ...

        def __enter__(self) -> WithVms:
            return self

        def __exit__(self, *_: object) -> None: ...

        def status(self, root: str) -> Any:
            return SimpleNamespace(root=2, vms=["vm1"])

    monkeypatch.setattr(talk, "Agents", WithVms)
    machine = SimpleNamespace(agent_address=client.Address("none"), run=pytest.fail)
    player = Player(cast(Any, machine), Talk(step=(Part(),)), Phases("x"), cast(Any, stage))
    with pytest.raises(ConflictError, match="vm1, which would be lost"):
        player.do(Part(do="crash"))


def test_what_is_over() -> None:
    facts = Facts(
        roots={"1": RootFacts(1, state=RootState.ALIVE), "2": RootFacts(2, state=RootState.CRASHED)}
    )
    assert talk._living(facts) == ["1"]
    assert talk._is(facts, 2, RootState.CRASHED)
    assert not talk._is(facts, 3, RootState.ENDED)
