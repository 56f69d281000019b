# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot watch` from a recording, and what the demo's options for an audience refuse."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cli.conftest import Run
from demo.test_demo_report import GOOD

from multiroot.cli import watch, watch_output
from multiroot.demo import scenario, stage, talk
from multiroot.demo.talk_script import Part
from multiroot.errors import PeerLostError
from multiroot.watch import events
from multiroot.watch.events import Event
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

SAMPLE = Path(__file__).parents[1] / "watch" / "sample.mrlog"


class Live:
    """A terminal on which drawing takes its time."""

    def __init__(self, takes_s: float) -> None:
        self.now, self.drawn = 100.0, 0
        self.console = SimpleNamespace(width=80, height=24)
        self._takes_s = takes_s

    def update(self, group: object, refresh: bool) -> None:
        self.drawn += 1
        self.now += self._takes_s


def test_a_screen_is_never_left_behind_and_where_drawing_is_slow_it_is_done_less_often() -> None:
    for takes_s, frames in ((0.0, 10), (0.1, 3)):
        live = Live(takes_s)
        screen = watch_output.Screen(live, lambda live=live: live.now)
        view, began = View(), live.now
        while live.now < began + 0.94:
            screen.show(events.Change(1, {}), view)
            live.now += 0.01
        assert live.drawn == frames
        # The last event came a moment after a picture. Nothing comes any more.
        live.now += 0.01
        screen.show(events.Change(1, {}), view)
        before = live.drawn
        live.now += 1
        for _ in range(3):
            screen.idle(view)
        assert live.drawn == before + 1


def test_a_replay_in_lines(run: Run) -> None:
    done = run("watch", "--replay", SAMPLE, "--speed", 0)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "resets of the machine: 0" in lines[0]
    assert any("0 bytes of RAM copied" in line for line in lines)


def test_a_replay_as_data_is_the_recording(run: Run) -> None:
    done = run("watch", "--replay", SAMPLE, "--speed", 0, "--json")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert told == [json.loads(line) for line in SAMPLE.read_text().splitlines()[1:]]


def test_a_replay_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[str] = []

    @contextmanager
    def drawn() -> Any:
        live = SimpleNamespace(
            console=SimpleNamespace(width=80, height=24),
            update=lambda group, refresh: frames.append("\n".join(text.plain for text in group.renderables)),
        )
        yield watch_output.Screen(live)

    monkeypatch.setattr(watch_output, "drawn", drawn)
    monkeypatch.setattr("multiroot.cli.watch_output.sys.stdout.isatty", lambda: True, raising=False)
    with watch_output.output(as_json=False) as shown:
        view = View()
        for event in Recording(SAMPLE).events():
            view.apply(event)
            if isinstance(event, events.Say):
                shown.show(event, view)
    assert "The VM has not noticed." in frames[-1]
    assert "root 1  ENDED" in frames[-1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--replay", "x", "--once"), "--replay shows what was recorded"),
        (("--replay", "x", "--record", "y"), "--replay shows what was recorded"),
        (("--once", "--record", "y"), "--once records nothing"),
        (("--replay", "none.mrlog"), "cannot read none.mrlog"),
        (("--replay", SAMPLE, "--speed", "-1"), "--speed"),
    ],
)
def test_what_does_not_go_together_or_is_not_there(run: Run, words: tuple[object, ...], says: str) -> None:
    done = run("watch", *words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_a_damaged_recording_is_refused_before_anything_is_shown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.mrlog"
    shutil.copy(SAMPLE, path)
    with path.open("a") as file:
        file.write('{"at":1,"say":"back in time"}\n')
    done = run("watch", "--replay", path)
    assert (done.code, done.out) == (2, "")
    assert "goes back in time" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--rehearse",), "--rehearse is for a talk"),
        (("--pause",), "this is no terminal"),
        (("--script", "x", "--rehearse", "--pause"), "leave --pause out"),
        (("--script", "x", "--vms", "2"), "a script says kernels and VMs itself"),
        (("--script", "none.toml"), "there is no none.toml"),
        (("--live", "--guest", "debian"), "are for --guest ticker"),
        (("--disk", "nbd"), "--disk is for --guest debian"),
        (("--disk", "nbd", "--guest", "debian", "--keep"), "ends with the demo"),
        (("--record", "/none/run.mrlog"), "there is no folder /none"),
    ],
)
def test_demos_that_make_no_sense(run: Run, words: tuple[str, ...], says: str) -> None:
    done = run("demo", *words)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_a_demo_that_is_recorded_has_an_audience(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def play(options: object, phases: object, audience: Any) -> object:
        seen.append(audience)
        audience._hear(events.State(1, {}), View())
        return GOOD

    monkeypatch.setattr(scenario, "run", play)
    done = run("demo", "--record", tmp_path / "run.mrlog")
    assert done.code == 0
    assert isinstance(seen[0], stage.Audience)
    assert list(Recording(tmp_path / "run.mrlog").events()) == [events.State(1, {})]
    assert Recording(tmp_path / "run.mrlog").header.title == "A launch and a handoff"


def test_a_rehearsal_says_how_long_each_part_took(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "talk.toml"
    path.write_text('title = "Mine"\n[[step]]\ndo = "launch"\nsay = "hello"\n')
    asked: list[Any] = []

    def play(options: talk.Options, phases: object, audience: object, key: object) -> list[talk.Took]:
        asked.append((options, key))
        return [talk.Took(1, Part(do="launch", say="hello"), 12.34, 1.0, 1)]

    monkeypatch.setattr(talk, "play", play)
    done = run("demo", "--script", path, "--rehearse")
    assert done.code == 0, done.err
    ((options, key),) = asked
    assert key is None
    assert options.lab.kernels == ("6.12",)
    for words in ("Mine", "hello", "12.3", "all of it: 13.3 s"):
        assert words in done.out
    assert run("demo", "--script", path, "--dry-run").out == "step 1: launch, 0 s of rest: hello\n"


def test_what_is_told_as_data_stays_data_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    event = events.Say(1, "\x7f\x1b[2J\n\u202e\x9b")
    watch_output.JsonLines().show(event, View())
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert events.from_json(json.loads(out)) == event


async def test_a_lab_that_ends_ends_it_once_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MACHINE_LOOK_S", 0.01)
    runs = [True]
    machine = SimpleNamespace(name="mine")
    lab = cast(Any, SimpleNamespace(alive=lambda: bool(runs), events=list, machine=machine))

    async def told() -> AsyncGenerator[Event, None]:
        yield events.Say(1, "root 1 is unknown")
        await asyncio.sleep(0.1)  # nothing comes, and it runs
        yield events.Say(2, "the last")
        runs.clear()
        await asyncio.Event().wait()

    heard = []

    async def listen() -> None:
        async for event in watch.while_it_runs(told(), lab):
            heard.append(event.at)

    with pytest.raises(PeerLostError, match="the lab machine has ended") as ended:
        await listen()
    assert heard == [1, 2]
    assert "multiroot lab logs --name mine" in ended.value.hint


async def test_what_ends_by_itself_is_no_error() -> None:
    async def told() -> AsyncGenerator[Event, None]:
        yield events.Say(1, "all")

    lab = cast(Any, SimpleNamespace(alive=lambda: True))
    assert [event.at async for event in watch.while_it_runs(told(), lab)] == [1]
