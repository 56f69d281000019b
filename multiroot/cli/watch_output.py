# SPDX-License-Identifier: GPL-2.0-or-later
"""What those see who watch: a screen that is drawn again, lines, or JSON. Each takes event by event."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
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


class Output(Protocol):
    """Shows what a view knows, after each event that it took in."""

    def show(self, event: Event, view: View) -> None: ...


class JsonLines:
    """Each event as a line of JSON."""

    def show(self, event: Event, view: View) -> None:
        # JSON has an escape for all that a terminal could take for an order, and writes one of them as it is.
        say(json.dumps(events.to_json(event), separators=(",", ":")).replace("\x7f", "\\u007f"))
        sys.stdout.flush()


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

    def _say(self, view: View, line: str) -> None:
        say(f"{max(0, view.at - self._began) / 1e9:8.3f} s  {line}")
        sys.stdout.flush()


class Screen:
    """The terminal's whole screen; use `drawn`."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._drawn = 0.0
        self.view: View | None = None

    def show(self, event: Event, view: View) -> None:
        self.view = view
        now = time.monotonic()
        urgent = isinstance(event, events.Say)
        if urgent or now - self._drawn >= FRAME_S:
            self._drawn = now
            self._live.update(frame(view, self._live.console.width, self._live.console.height), refresh=True)


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
