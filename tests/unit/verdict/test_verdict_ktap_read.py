# SPDX-License-Identifier: GPL-2.0-or-later
"""What kselftests print, as points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.verdict import ktap
from multiroot.verdict.ktap_read import read, why_skipped
from multiroot.verdict.points import Outcome, Point


@pytest.mark.parametrize(
    ("line", "claim", "outcome", "seen"),
    [
        ("ok 1 global.trivial", "global.trivial", Outcome.HELD, ""),
        ("ok 2 - with a dash", "with a dash", Outcome.HELD, ""),
        ("not ok 3 wrong", "wrong", Outcome.FAILED, ""),
        ("not ok 3 wrong # TIMEOUT 45 seconds", "wrong", Outcome.FAILED, "TIMEOUT 45 seconds"),
        ("ok 4 absent # SKIP no /dev/kvm", "absent", Outcome.SKIPPED, "no /dev/kvm"),
        # As kselftest.h prints it, with the name behind.
        ("ok 5 # SKIP no time namespaces", "no time namespaces", Outcome.SKIPPED, "no time namespaces"),
        ("ok 6 # XFAIL known", "known", Outcome.HELD, "XFAIL known"),
        ("not ok 7 later # TODO soon", "later", Outcome.HELD, "TODO soon"),
        ("ok 8", "test 8", Outcome.HELD, ""),
        ("ok 9 took long # 3 s", "took long", Outcome.HELD, ""),
    ],
)
def test_a_result(line: str, claim: str, outcome: Outcome, seen: str) -> None:
    (found,) = read(f"TAP version 13\n1..1\n# said\n{line}\n# Totals: pass:1\n")
    assert (found.claim, found.outcome, found.seen) == (claim, outcome, seen)


def test_what_is_no_result() -> None:
    """Nested tests are in the point of theirs, and words are words."""
    assert read("  ok 1 nested\n# ok 2 a comment\nokay\nnot okay\nit is ok 3\nok 1 outer\n") == [
        Point("outer", Outcome.HELD)
    ]


def test_a_result_behind_other_words() -> None:
    """posix_timers ends no line before its result; what it said there stays with it."""
    output = (
        "TAP version 13\n1..4\n# Testing clocks... ok 1 first\n"
        "Diff too high: 3951214..not ok 2 ITIMER_VIRTUAL\nDiff: 7..ok 3 # SKIP ITIMER_PROF\nok 4 last\n"
    )
    assert read(output) == [
        Point("first", Outcome.HELD, "", ("# Testing clocks...",)),
        Point("ITIMER_VIRTUAL", Outcome.FAILED, "", ("Diff too high: 3951214..",)),
        Point("ITIMER_PROF", Outcome.SKIPPED, "ITIMER_PROF", ("Diff: 7..",)),
        Point("last", Outcome.HELD),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "that is ok 1",  # a line of its own has it
        "that is ok 3",  # not planned
        "a book 2",
        "  nested: ok 2",
        "# ok 2 nested, in the older way",
    ],
)
def test_words_that_look_like_a_result(words: str) -> None:
    assert read(f"1..2\n{words}\nok 1 outer\n") == [Point("outer", Outcome.HELD)]


def test_programs_in_a_row_each_count_from_one() -> None:
    first, second = "TAP version 13\n1..2\nok 1 a\nok 2 b\n", "TAP version 13\n1..1\nhm..ok 1 c\n"
    assert [each.claim for each in read(first + second)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (
            "TAP version 13\n1..0 # SKIP /dev/kvm not available (errno: 2)\n",
            "/dev/kvm not available (errno: 2)",
        ),
        ("SKIP: there is no livepatch here\n", "there is no livepatch here"),
        ("# SKIP there is no /bin/bash here\n", "there is no /bin/bash here"),
        ("1..2\nthis takes root\n", "this takes root"),
        ("1..0 # SKIP\n", "it says no more"),
        ("", "it says no more"),
    ],
)
def test_why_one_was_skipped(output: str, why: str) -> None:
    assert why_skipped(output) == why


words = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1)


@given(st.lists(st.builds(Point, words, st.sampled_from(Outcome), words)))
def test_what_we_write_can_be_read(points: list[Point]) -> None:
    found = read(ktap.write(points))
    assert [(each.claim, each.outcome) for each in found] == [(each.claim, each.outcome) for each in points]


@given(st.text())
def test_whatever_is_printed(text: str) -> None:
    read(text)
    assert why_skipped(text)
