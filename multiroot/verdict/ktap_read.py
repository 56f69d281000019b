# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what a kselftest prints: KTAP or TAP of any version, between whatever else it says.

Of nested tests only the outer ones are points: what is in them has been judged by them. A test may print a
result behind other words in one line, which it left without an end. Words may look like results as well, so
there a number counts only if the test's plan has it and no line begins with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from multiroot.verdict.points import Outcome, Point

_RESULT = re.compile(
    r"^(?P<not>not )?ok\b(?: (?P<number>\d{1,9})\b)?(?: -)? ?(?P<text>[^#]*?)\s*"
    r"(?:#\s*(?P<word>SKIP|XFAIL|TODO|TIMEOUT)\b:?\s*(?P<why>.*)|#.*)?$",
    re.IGNORECASE,
)
_VERSION = re.compile(r"^K?TAP version \d+", re.IGNORECASE)
_PLAN = re.compile(r"^1\.\.(\d{1,9})\b")
_BEHIND = re.compile(r"(?<![\w-])(?:not )?ok (?P<number>\d{1,9})\b")
_NOTHING = re.compile(r"^1\.\.0\s*#\s*SKIP[\s:-]*(?P<why>.*)$", re.IGNORECASE)
_EXPECTED = ("xfail", "todo")  # a failure that its author knows of


def read(text: str) -> list[Point]:
    """The results in a test's output, in their order."""
    found: list[Point] = []
    for document in _documents(text.splitlines()):
        unsaid = _unsaid(document)
        for line in document:
            words, result = _apart(line.rstrip(), unsaid)
            if match := _RESULT.match(result):
                found.append(_point(match, len(found) + 1, words))
    return found


def _documents(lines: Sequence[str]) -> Iterator[list[str]]:
    """What each program says that counts its results from one: a test may run several."""
    document: list[str] = []
    for line in lines:
        if _VERSION.match(line) and document:
            yield document
            document = []
        document.append(line)
    yield document


def _unsaid(document: Sequence[str]) -> set[int]:
    """Numbers of the plan with which no line's result begins."""
    planned = max((int(match[1]) for line in document if (match := _PLAN.match(line))), default=0)
    results = (_RESULT.match(line.rstrip()) for line in document)
    said = {int(match["number"]) for match in results if match and match["number"]}
    return set(range(1, min(planned, len(document)) + 1)) - said


def _apart(line: str, unsaid: set[int]) -> tuple[str, str]:
    """The words before a result with one of these numbers, which has been said then, and the result. A line
    without any is all result.
    """
    for match in _BEHIND.finditer(line):
        words, number = line[: match.start()], int(match["number"])
        if number in unsaid and words.strip("# ") and not words[0].isspace():
            unsaid.discard(number)
            return words.strip(), line[match.start() :]
    return "", line


def _point(match: re.Match[str], number: int, words: str) -> Point:
    word, why = (match["word"] or "").lower(), (match["why"] or "").strip()
    # kselftest.h puts the name behind the word.
    claim = match["text"].strip() or why or f"test {match['number'] or number}"
    said = (words,) if words else ()
    if word == "skip":
        return Point(claim, Outcome.SKIPPED, why, said)
    seen = f"{word.upper()} {why}".strip() if word else ""
    failed = match["not"] and word not in _EXPECTED
    return Point(claim, Outcome.FAILED if failed else Outcome.HELD, seen, said)


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
