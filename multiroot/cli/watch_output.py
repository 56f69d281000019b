# SPDX-License-Identifier: GPL-2.0-or-later
"""What those see who watch: a screen that is drawn again, lines, or JSON. Each takes event by event."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from multiroot.cli.output import console, say
from multiroot.cli.watch_screen import screen
from multiroot.watch import events
from multiroot.watch.events import Event
from multiroot.watch.lines import changes, summary
from multiroot.watch.view import View

if TYPE_CHECKING:
    from rich.console import Group

FRAME_S = 0.1  # a terminal is drawn ten times a second at most
REST, REST_MOST_S = 3.0, 1.5  # times as long as drawing took, until the next: a root has better things to do


class Output(Protocol):
    """Shows what a view knows, after each event that it took in."""

    def show(self, event: Event, view: View) -> None: ...

    def idle(self, view: View) -> None:
        """Nothing has come for a moment: show what was left out to save time."""


class JsonLines:
    """Each event as a line of JSON."""

    def show(self, event: Event, view: View) -> None:
        # JSON has an escape for all that a terminal could take for an order, and writes one of them as it is.
        say(json.dumps(events.to_json(event), separators=(",", ":")).replace("\x7f", "\\u007f"))
        sys.stdout.flush()

    def idle(self, view: View) -> None:
        """All was shown at once."""


class PlainLines:
    """A line for each change, with the time since the beginning."""

    def __init__(self) -> None:
        self._before = View()
        self._began = 0

    def show(self, event: Event, view: View) -> None:
        self._began = self._began or view.at
        if isinstance(event, events.Say):
            if event.text:
                self._say(view, f"--- {event.text}")
            return
        if isinstance(event, events.Points):
            return
        now = view.facts
        first = not self._before.document
        for line in summary(now) if first else changes(self._before.facts, now):
            self._say(view, line)
        self._before.apply(events.State(view.at, view.document))

    def idle(self, view: View) -> None:
        """All was shown at once."""

    def _say(self, view: View, line: str) -> None:
        say(f"{max(0, view.at - self._began) / 1e9:8.3f} s  {line}")
        sys.stdout.flush()


class Screen:
    """The terminal's whole screen; use `drawn`."""

    def __init__(self, live: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """`live` is rich's; `clock` in seconds."""
        self._live = live
        self._clock = clock
        self._next = 0.0  # when it may be drawn again
        self._due = False
        self.view: View | None = None

    def show(self, event: Event, view: View) -> None:
        self.view, self._due = view, True
        if isinstance(event, events.Say):
            self._next = 0.0
        self.idle(view)

    def idle(self, view: View) -> None:
        """Draw what was not drawn yet, unless it was drawn a moment ago."""
        began = self._clock()
        if not self._due or began < self._next:
            return
        self._due = False
        self._live.update(frame(view, self._live.console.width, self._live.console.height), refresh=True)
        took = self._clock() - began
        self._next = began + max(FRAME_S, took + min(REST * took, REST_MOST_S))


def frame(view: View, width: int, height: int) -> Group:
    """One picture of the machine."""
    from rich.console import Group

    return Group(*screen(view, width, height))


@contextmanager
def drawn() -> Iterator[Screen]:
    """A screen while the body runs; the last picture stays."""
    from rich.live import Live

    out = console()
    out.soft_wrap = False
    with Live(console=out, screen=True, auto_refresh=False, transient=True) as live:
        made = Screen(live)
        yield made
    if made.view is not None:
        out.print(frame(made.view, out.width, out.height))


@contextmanager
def output(*, as_json: bool) -> Iterator[Output]:
    """What suits: JSON if asked for, a screen on a terminal, lines elsewhere."""
    if as_json:
        yield JsonLines()
    elif sys.stdout.isatty():
        with drawn() as made:
            yield made
    else:
        yield PlainLines()
