# SPDX-License-Identifier: GPL-2.0-or-later
"""Timing: what subscribers and the record get of a phase."""

from __future__ import annotations

import pytest

from multiroot.phases import Phase, Phases
from multiroot.rpc import phases as wire


class Clock:
    """Counts its readings: 100, 200, 300 ... ns."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 100
        return self.now


@pytest.fixture
def phases() -> Phases:
    return Phases("old root", Clock())


def test_a_phase_is_published_at_start_and_end(phases: Phases) -> None:
    seen: list[Phase] = []
    phases.subscribe(seen.append)
    with phases.phase("load", blackout=True, bytes=7) as attributes:
        assert seen == [Phase("load", "old root", 100, None, True, attrs={"bytes": 7})]
        assert seen[0].end_ns is None
        attributes["segments"] = 2
    ended = Phase("load", "old root", 100, 100, True, True, {"bytes": 7, "segments": 2})
    assert seen[1:] == [ended]
    assert ended.end_ns == 200


def test_phases_lie_in_each_other(phases: Phases) -> None:
    seen: list[tuple[str, int | None]] = []
    phases.subscribe(lambda phase: seen.append((phase.name, phase.duration_ns)))
    with phases.phase("outer"), phases.phase("inner"):
        pass
    assert seen == [("outer", None), ("inner", None), ("inner", 100), ("outer", 300)]


def test_a_failure_ends_the_phase_and_goes_on(phases: Phases) -> None:
    seen: list[Phase] = []
    phases.subscribe(seen.append)
    with pytest.raises(KeyError), phases.phase("load"):
        raise KeyError
    assert [(phase.ok, phase.duration_ns) for phase in seen] == [(True, None), (False, 100)]


def test_finished_phases_are_kept_in_the_order_of_their_ends(phases: Phases) -> None:
    with phases.phase("outer"), phases.phase("inner"):
        pass
    theirs = Phase("join", "new root", 1, 2)
    phases.add(theirs)
    assert [phase.name for phase in phases.finished] == ["inner", "outer", "join"]


def test_what_is_only_published_is_not_kept(phases: Phases) -> None:
    seen: list[Phase] = []
    phases.subscribe(seen.append)
    theirs = Phase("join", "new root", 1, 2)
    phases.publish(theirs)
    assert seen == [theirs]
    assert list(phases.finished) == []


def test_a_subscriber_that_left_gets_nothing_more(phases: Phases) -> None:
    first: list[str] = []
    second: list[str] = []
    leave = phases.subscribe(lambda phase: first.append(phase.name))
    phases.subscribe(lambda phase: second.append(phase.name))
    phases.publish(Phase("one", "old root", 1))
    leave()
    phases.publish(Phase("two", "old root", 1))
    assert (first, second) == (["one"], ["one", "two"])


def test_a_subscriber_may_leave_while_it_is_called(phases: Phases) -> None:
    seen: list[str] = []

    def once(phase: Phase) -> None:
        seen.append(phase.name)
        leave()

    leave = phases.subscribe(once)
    phases.subscribe(lambda phase: seen.append(f"{phase.name} again"))
    phases.publish(Phase("one", "old root", 1))
    assert seen == ["one", "one again"]


def test_phases_that_are_kept_are_small() -> None:
    """An agent keeps a thousand, most of which came as messages from the other root."""
    one, other = (
        wire.from_proto(wire.to_proto(Phase("load", "old root", at, 5, attrs={"vm": "web"}))) for at in (1, 2)
    )
    assert not hasattr(one, "__dict__")
    assert one.name is other.name
    assert one.side is other.side
    assert next(iter(one.attrs)) is next(iter(other.attrs))
