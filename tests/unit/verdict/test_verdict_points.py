# SPDX-License-Identifier: GPL-2.0-or-later
"""Points as KTAP and as JUnit's XML: what readers of these formats rely on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as tree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.verdict import junit, ktap
from multiroot.verdict.points import Outcome, Point, counts, held, of_checks, point

POINTS = (
    point("the machine was never reset", True, "0 resets"),
    point("#1 went well", False, "3 ticks missing", ["line one", "line\ntwo"]),
    Point("kmemleak", Outcome.SKIPPED, "not in this kernel"),
)
points = st.lists(
    st.builds(
        Point,
        st.text(),
        st.sampled_from(Outcome),
        st.text(),
        st.lists(st.text(), max_size=2).map(tuple),
        st.floats(0, 1e6),
    )
)


@dataclass
class Check:
    claim: str
    held: bool
    seen: str


def test_ktap() -> None:
    assert ktap.write(POINTS) == (
        "KTAP version 1\n"
        "1..3\n"
        "ok 1 the machine was never reset # 0 resets\n"
        "# line one\n"
        "# line two\n"
        "not ok 2 1 went well # 3 ticks missing\n"
        "ok 3 kmemleak # SKIP not in this kernel\n"
        "# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0\n"
    )


def test_points_in_points() -> None:
    inner = (point("part", True), point("other part", False, "why"))
    outer = Point("suite: test", Outcome.FAILED, "exited with 1", ("last words",), 1.0, inner)
    assert ktap.write([outer]).splitlines()[2:-1] == [
        "  KTAP version 1",
        "  1..2",
        "  ok 1 part",
        "  not ok 2 other part # why",
        "# last words",
        "not ok 1 suite: test # exited with 1",
    ]
    top = tree.fromstring(junit.write([outer], "try"))
    assert (top.attrib["tests"], top.attrib["failures"]) == ("3", "2")
    assert [case.attrib["name"] for case in top] == [
        "suite: test",
        "suite: test: part",
        "suite: test: other part",
    ]


def test_junit() -> None:
    top = tree.fromstring(junit.write(POINTS, "try"))
    assert {key: top.attrib[key] for key in ("name", "tests", "failures", "skipped")} == {
        "name": "try",
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }
    assert [[child.tag for child in case] for case in top] == [["system-out"], ["failure"], ["skipped"]]
    failure = top[1][0]
    assert failure.attrib["message"] == "3 ticks missing"
    assert "line one" in str(failure.text)


@given(points)
def test_every_point_is_a_result_in_ktap(given_points: list[Point]) -> None:
    """Nothing that a kernel or a program said makes a line of its own."""
    lines = ktap.write(given_points).split("\n")
    assert lines[:2] == ["KTAP version 1", f"1..{len(given_points)}"]
    results = [line for line in lines if re.match(r"(not )?ok \d+ ", line)]
    assert len(results) == len(given_points)
    for number, (line, each) in enumerate(zip(results, given_points, strict=True), 1):
        assert line.startswith(f"{'not ok' if each.outcome is Outcome.FAILED else 'ok'} {number} ")
    assert all(line.startswith("#") for line in lines[2:-1] if line not in results)


@given(points, st.text())
def test_junit_is_always_xml(given_points: list[Point], suite: str) -> None:
    top = tree.fromstring(junit.write(given_points, suite).encode())
    assert len(top) == len(given_points)
    assert int(top.attrib["failures"]) == sum(each.outcome is Outcome.FAILED for each in given_points)


def test_a_skipped_point_does_not_fail() -> None:
    assert held([POINTS[0], POINTS[2]])
    assert not held(POINTS)
    assert counts(POINTS) == {Outcome.HELD: 1, Outcome.FAILED: 1, Outcome.SKIPPED: 1}


@pytest.mark.parametrize("well", [True, False])
def test_checks_become_points(well: bool) -> None:
    assert of_checks([Check("a", well, "b")]) == [point("a", well, "b")]
