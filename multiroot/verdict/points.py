# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims of a judging command and what became of each: its test points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

SKIP = 4  # what a kselftest exits with when it was not run (tools/testing/selftests/kselftest.h, KSFT_SKIP)


class Outcome(StrEnum):
    """What became of a claim."""

    HELD = "held"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Point:
    """One claim. `seen` is what was seen of it, in a line; `details` are more lines. `seconds` it took, 0:
    none of its own. `points` are those that it consists of.
    """

    claim: str
    outcome: Outcome
    seen: str = ""
    details: tuple[str, ...] = ()
    seconds: float = 0.0
    points: tuple[Point, ...] = ()


class Check(Protocol):
    """A claim of a demo."""

    @property
    def claim(self) -> str: ...
    @property
    def held(self) -> bool: ...
    @property
    def seen(self) -> str: ...


def of_checks(checks: Iterable[Check]) -> list[Point]:
    """The points of claims that either held or did not."""
    return [point(check.claim, check.held, check.seen) for check in checks]


def point(claim: str, held: bool, seen: str = "", details: Iterable[str] = ()) -> Point:
    """A point that was looked at."""
    return Point(claim, Outcome.HELD if held else Outcome.FAILED, seen, tuple(details))


def counts(points: Sequence[Point]) -> dict[Outcome, int]:
    """How many there are of each outcome."""
    counted = Counter(each.outcome for each in points)
    return {outcome: counted[outcome] for outcome in Outcome}


def held(points: Iterable[Point]) -> bool:
    """Whether none has failed."""
    return all(each.outcome is not Outcome.FAILED for each in points)
