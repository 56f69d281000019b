# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream of events has told so far: the document, the newest points of strips, the text on show."""

from __future__ import annotations

from collections import deque
from typing import Any

from multiroot.watch.decode import from_json
from multiroot.watch.events import Change, Event, Point, Points, Say, State
from multiroot.watch.facts import Facts
from multiroot.watch.patch import applied

# Points that are kept of a strip, the newest. A guest of the lab ticks 100 times a second.
KEPT = 4096


class View:
    """Takes in events. Its memory is bounded by the document and by `KEPT` points for each of its streams."""

    def __init__(self, kept: int = KEPT) -> None:
        self.document: dict[str, Any] = {}
        self.strips: dict[str, deque[Point]] = {}
        self.said = ""
        self.at = 0  # of the newest event
        self._kept = kept
        self._facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """The document as `Facts`; raises BadRequestError if it can't be that."""
        if self._facts is None:
            self._facts = from_json(self.document)
        return self._facts

    def apply(self, event: Event) -> None:
        """Take in one event. Points of a strip that the document's `streams` does not name are dropped."""
        self.at = max(self.at, event.at)
        match event:
            case State(_, document):
                self._become(document)
                self.strips.clear()
            case Change(_, patch):
                self._become(applied(self.document, patch))
            case Points(_, points):
                streams = self.document.get("streams") or {}
                for name, more in points.items():
                    if name in streams:
                        self.strips.setdefault(name, deque(maxlen=self._kept)).extend(more)
            case Say(_, text):
                self.said = text

    def snapshot(self) -> list[Event]:
        """Events that tell another view all that this one knows; the first is a State."""
        events: list[Event] = [State(self.at, self.document)]
        if strips := {name: list(strip) for name, strip in self.strips.items() if strip}:
            events.append(Points(self.at, strips))
        events.append(Say(self.at, self.said))
        return events

    def _become(self, document: dict[str, Any]) -> None:
        self.document, self._facts = document, None
        named = document.get("streams")
        for name in tuple(self.strips):
            if not isinstance(named, dict) or name not in named:
                del self.strips[name]
