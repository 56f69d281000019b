# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings: what is written is what is read, and what is no recording is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.watch.decode import to_json
from multiroot.watch.events import Change, Event, Points, Say, State
from multiroot.watch.events import from_json as event_from_json
from multiroot.watch.events import to_json as event_to_json
from multiroot.watch.facts import Facts, RootFacts, RootState
from multiroot.watch.recording import Recorder, Recording
from multiroot.watch.replay import play
from multiroot.watch.view import View

NAMES = st.sampled_from(("vm0", "root", "é", "a b"))
WORDS = st.text(max_size=8)
TIMES = st.integers(0, 1 << 62)
POINTS = st.tuples(TIMES, TIMES) | st.tuples(TIMES, TIMES, st.integers(0, 254))
EVENTS = st.one_of(
    st.builds(Change, TIMES, st.dictionaries(NAMES, st.none() | st.integers() | WORDS, max_size=3)),
    st.builds(Points, TIMES, st.dictionaries(NAMES, st.lists(POINTS, max_size=3), max_size=2)),
    st.builds(Say, TIMES, WORDS),
)
START = State(1, to_json(Facts(roots={"1": RootFacts(1, "old", RootState.ALIVE)})))
HEADER = '{"mrlog":1,"version":"0","started":"","title":""}'


@given(EVENTS)
def test_an_event_survives_json(event: Event) -> None:
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | WORDS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("at", "state", "patch", "points", "say", "x")), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_anything_is_an_event_or_refused(data: object) -> None:
    try:
        event = event_from_json(data)
    except BadRequestError:
        return
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.mrlog"
    told: list[Event] = [
        START,
        Say(2, "hello"),
        Change(3, {"roots": {"1": {"state": "unknown"}}}),
        Points(4, {"ticks/vm0": [(3, 7, 1)]}),
    ]
    with Recorder(path, "a talk") as recorder:
        for event in told:
            recorder.write(event)
    recording = Recording(path)
    assert recording.header.title == "a talk"
    assert list(recording.events()) == told
    assert recording.check() == 4


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.mrlog"
    with Recorder(path) as recorder:
        recorder.write(START)
    with path.open("a") as file:
        file.write('{"at":5,"say":"hel')
    assert list(Recording(path).events()) == [START]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no recording"),
        ("hello\n", "is no recording"),
        ('{"at":1}\n', "is no recording"),
        ("[" * 100_000, "is no recording"),
        ('{"mrlog":99}\n', "is of format 99"),
        (f"{HEADER}\n", "has no events"),
        (f'{HEADER}\n{{"at":1,"say":"x"}}\n', "line 2: the first event is no state"),
        (f'{HEADER}\n{{"at":5,"state":{{}}}}\n{{"at":4,"say":"x"}}\n', "line 3: it goes back in time"),
        (f'{HEADER}\n{{"at":5,"state":{{"roots":{{"x":{{}}}}}}}}\n', "line 2: facts can't have a root"),
        (
            f'{HEADER}\n{{"at":5,"state":{{"vms":{{"a":{{"epoch":"1"}}}}}}}}\n',
            "facts.vms.a.epoch can't be '1'",
        ),
        (f'{HEADER}\n{{"at":5,"state":{{"version":2}}}}\n', "version 2"),
        (f'{HEADER}\n{{"at":5,"state":{{}}}}\n{{"at":6}}\n', "line 3: it is no state, patch, points or say"),
        (f'{HEADER}\n{{"at":5,"state":{{}}}}\nnonsense\n', "line 3: it is no JSON"),
        (f'{HEADER}\n{{"at":5,"state":{{}}}}\n{{"at":6,"points":{{"t":[[1]]}}}}\n', "is no point"),
    ],
)
def test_bad_files_get_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.mrlog"
    path.write_text(text)
    with pytest.raises(BadRequestError, match=r"bad\.mrlog") as caught:
        Recording(path).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="cannot read"):
        Recording(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadRequestError, match="no text"):
        Recording(tmp_path / "bytes")
    with pytest.raises(BadRequestError, match="cannot write"):
        Recorder(tmp_path / "none" / "run.mrlog")


def test_ten_thousand_events_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "long.mrlog"
    with Recorder(path) as recorder:
        recorder.write(State(1, {"streams": {"ticks/vm0": {}}}))
        for number in range(10_000):
            recorder.write(Points(2 + number, {"ticks/vm0": [(number, number)]}))
    view = View(kept=100)
    for event in Recording(path).events():
        view.apply(event)
    assert len(view.strips["ticks/vm0"]) == 100


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 2.0), (4.0, 0.5), (0.0, 0.0)])
async def test_a_replay_takes_as_long_as_the_run_did(tmp_path: Path, speed: float, seconds: float) -> None:
    path = tmp_path / "run.mrlog"
    with Recorder(path) as recorder:
        recorder.write(State(10_000_000_000, {}))
        recorder.write(Say(11_000_000_000, "x"))
        recorder.write(Say(12_000_000_000, "y"))
    time = Time()
    heard = [event async for event in play(Recording(path), speed, clock=time.clock, sleep=time.sleep)]
    assert [type(event) for event in heard] == [State, Say, Say]
    assert time.now == pytest.approx(100.0 + seconds)
