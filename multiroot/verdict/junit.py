# SPDX-License-Identifier: GPL-2.0-or-later
"""Points as the XML that JUnit made usual, for those who show test results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree as tree

from multiroot.verdict.points import Outcome, Point, counts


def write(points: Sequence[Point], suite: str) -> str:
    """The whole document; `suite` is the name of what was run. What a point consists of stands beside it,
    for JUnit has no tests in tests.
    """
    points = [
        each
        for outer in points
        for each in (
            outer,
            *(replace(inner, claim=f"{outer.claim}: {inner.claim}") for inner in outer.points),
        )
    ]
    all_ = counts(points)
    top = tree.Element(
        "testsuite",
        name=_clean(suite),
        tests=str(len(points)),
        failures=str(all_[Outcome.FAILED]),
        skipped=str(all_[Outcome.SKIPPED]),
        errors="0",
        time=f"{sum(each.seconds for each in points):.3f}",
    )
    for each in points:
        case = tree.SubElement(
            top, "testcase", classname=_clean(suite), name=_clean(each.claim), time=f"{each.seconds:.3f}"
        )
        text = _clean("\n".join((each.seen, *each.details)).strip())
        if each.outcome is Outcome.FAILED:
            tree.SubElement(case, "failure", message=_clean(each.seen)).text = text
        elif each.outcome is Outcome.SKIPPED:
            tree.SubElement(case, "skipped", message=_clean(each.seen))
        elif text:
            tree.SubElement(case, "system-out").text = text
    tree.indent(top)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tree.tostring(top, encoding="unicode")}\n'


def _clean(text: str) -> str:
    """What XML 1.0 can hold: it has no control characters, no surrogates, and two numbers less than
    Unicode.
    """
    return "".join(c if c in "\n\t" or (c.isprintable() and c not in "\ufffe\uffff") else "?" for c in text)
