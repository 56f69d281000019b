# SPDX-License-Identifier: GPL-2.0-or-later
"""Every nanosecond of a blackout has exactly one owner."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.results.trace import blackout_parts, chrome, owners
from multiroot.phases import Phase

PHASES = st.lists(
    st.builds(
        Phase,
        name=st.sampled_from("abc"),
        side=st.sampled_from(("root 1", "root 2")),
        start_ns=st.integers(0, 100),
        duration_ns=st.integers(0, 50),
        blackout=st.booleans(),
    ),
    max_size=6,
)
HANDOFF = (
    Phase("prepare", "root 1", 0, 100),
    Phase("save", "root 1", 110, 20, blackout=True),
    Phase("load", "root 2", 125, 25, blackout=True),
    Phase("resume", "root 2", 160, 5, blackout=True),
)


@given(PHASES)
def test_the_parts_are_the_whole(phases: list[Phase]) -> None:
    parts = blackout_parts(phases)
    inside = [phase for phase in phases if phase.blackout]
    lasting = sum(part.end_ns - part.start_ns for part in parts)
    assert lasting == (max(p.end_ns or 0 for p in inside) - min(p.start_ns for p in inside) if inside else 0)
    assert all(before.end_ns == after.start_ns for before, after in pairwise(parts))
    assert all(part.start_ns < part.end_ns for part in parts)


def test_who_owns_what() -> None:
    assert [(part.owner, part.start_ns, part.end_ns) for part in blackout_parts(HANDOFF)] == [
        ("root 1: save", 110, 125),
        ("root 2: load", 125, 150),
        ("from load to resume", 150, 160),
        ("root 2: resume", 160, 165),
    ]


@given(PHASES)
def test_a_chrome_trace_has_all_phases(phases: list[Phase]) -> None:
    events = json.loads(json.dumps(chrome(phases)))["traceEvents"]
    spans = [event for event in events if event["ph"] == "X" and event["pid"] > 1]
    assert len(spans) == len(phases)
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in spans)
    named = {event["pid"] for event in events if event["ph"] == "M"}
    assert {event["pid"] for event in events} <= named


def test_the_owners_of_several_blackouts_are_the_same_whichever_root_gives() -> None:
    there = [Phase("save", "root 1", 0, 10, blackout=True), Phase("load", "root 2", 10, 20, blackout=True)]
    back = [Phase("save", "root 2", 0, 20, blackout=True), Phase("load", "root 1", 24, 20, blackout=True)]
    assert owners([there, back]) == {"save": 15, "load": 20, "from save to load": 2}
