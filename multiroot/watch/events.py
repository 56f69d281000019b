# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream of facts consists of, and each event as one JSON object (a line of an .mrlog file).

A stream begins with a `State`. A `State` may come again at any time and replaces all that was known: a slow
reader gets one in place of what it has missed. `at` is ns on the machine-wide TSC clock, and never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multiroot.errors import BadRequestError

# (time in ns, value) or (time in ns, value, number of the root that saw it)
Point = tuple[int, int] | tuple[int, int, int]


@dataclass(frozen=True)
class State:
    """The whole document."""

    at: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A merge patch of the document."""

    at: int
    patch: dict[str, Any]


@dataclass(frozen=True)
class Points:
    """More points of strips, by the strips' names, oldest first. Who keeps them keeps a bounded number."""

    at: int
    points: dict[str, list[Point]]


@dataclass(frozen=True)
class Say:
    """A text for the audience; it stands until the next one, "" takes it away."""

    at: int
    text: str


Event = State | Change | Points | Say


def to_json(event: Event) -> dict[str, Any]:
    """The event as an object: {"at", and one of "state", "patch", "points", "say"}."""
    match event:
        case State(at, document):
            return {"at": at, "state": document}
        case Change(at, patch):
            return {"at": at, "patch": patch}
        case Points(at, points):
            return {"at": at, "points": points}
        case Say(at, text):
            return {"at": at, "say": text}


def from_json(data: object) -> Event:
    """The inverse; raises BadRequestError for what is no event."""
    if not isinstance(data, dict) or not _is_number(data.get("at")):
        raise BadRequestError("it has no time stamp")
    at = data["at"]
    match data:
        case {"state": dict(document)}:
            return State(at, document)
        case {"patch": dict(patch)}:
            return Change(at, patch)
        case {"points": dict(points)}:
            return Points(at, {name: _points(name, strip) for name, strip in points.items()})
        case {"say": str(text)}:
            return Say(at, text)
    raise BadRequestError("it is no state, patch, points or say")


def _points(name: str, strip: object) -> list[Point]:
    if not isinstance(strip, list):
        raise BadRequestError(f"the points of {name!r} are no list")
    return [_point(name, point) for point in strip]


def _point(name: str, point: object) -> Point:
    if not isinstance(point, list) or len(point) not in (2, 3) or not all(map(_is_number, point)):
        raise BadRequestError(f"{name!r} has something that is no point")
    return (point[0], point[1]) if len(point) == 2 else (point[0], point[1], point[2])


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
