# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what a kselftest prints: KTAP or TAP of any version, between whatever else it says.

Of nested tests only the outer ones are points: what is in them has been judged by them.
"""

from __future__ import annotations

import re

from multiroot.verdict.points import Outcome, Point

_RESULT = re.compile(
    r"^(?P<not>not )?ok\b(?: (?P<number>\d+)\b)?(?: -)? ?(?P<text>[^#]*?)\s*"
    r"(?:#\s*(?P<word>SKIP|XFAIL|TODO|TIMEOUT)\b:?\s*(?P<why>.*)|#.*)?$",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"^1\.\.0\s*#\s*SKIP\s*(?P<why>.*)$", re.IGNORECASE)
_EXPECTED = ("xfail", "todo")  # a failure that its author knows of


def read(text: str) -> list[Point]:
    """The results in a test's output, in their order."""
    found: list[Point] = []
    for line in text.splitlines():
        if match := _RESULT.match(line.rstrip()):
            found.append(_point(match, len(found) + 1))
    return found


def _point(match: re.Match[str], number: int) -> Point:
    word, why = (match["word"] or "").lower(), (match["why"] or "").strip()
    # kselftest.h puts the name behind the word.
    claim = match["text"].strip() or why or f"test {match['number'] or number}"
    if word == "skip":
        return Point(claim, Outcome.SKIPPED, why)
    if match["not"] and word not in _EXPECTED:
        return Point(claim, Outcome.FAILED, f"{word.upper()} {why}".strip())
    return Point(claim, Outcome.HELD, f"{word.upper()} {why}".strip() if word else "")


def why_skipped(text: str) -> str:
    """What a test that was skipped says of it: behind the word SKIP, or in its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if match := _NOTHING.match(line):
            return match["why"].strip() or "it says no more"
    marked = [line.partition("SKIP")[2].lstrip(": ").strip() for line in lines if "SKIP" in line]
    said = [each for each in marked if each]
    plain = [line.lstrip("# ") for line in lines if not line.startswith(("TAP version", "KTAP version"))]
    return (said or plain or ["it says no more"])[-1]
