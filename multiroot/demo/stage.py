# SPDX-License-Identifier: GPL-2.0-or-later
"""Those who look on while a demo plays: nobody, or an audience that watches and a recording of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from multiroot.errors import MultirootError
from multiroot.lab.lab import Lab
from multiroot.lab.visitors import visited
from multiroot.watch.background import Hear, InBackground
from multiroot.watch.facts import Facts

KEY = "(press any key)"
SEEN_S = 60.0  # by then what a root has done is told


class Stage:
    """Nobody looks on."""

    @contextmanager
    def open(self, machine: Lab) -> Iterator[None]:
        """While the body runs, this machine is what is shown."""
        yield

    def step(self, text: str) -> None:
        """This is done next."""

    def say(self, text: str) -> None:
        """Show a text."""


class Audience(Stage):
    """Everything that the agents tell goes to `hear`."""

    def __init__(self, hear: Hear, pause: Callable[[], None] | None = None) -> None:
        """`pause` waits for somebody before each step."""
        self._hear = hear
        self._pause = pause
        self._watching: InBackground | None = None

    @contextmanager
    def open(self, machine: Lab) -> Iterator[None]:
        with InBackground(lambda: visited(machine.state), self._hear) as self._watching:
            self._watching.wait(lambda facts: bool(facts.roots), SEEN_S, "no agent was heard")
            yield

    def step(self, text: str) -> None:
        if self._pause is None:
            self.say(text)
        else:
            self.ask(text, self._pause)

    def ask(self, text: str, pause: Callable[[], None]) -> None:
        """Show a text, and that somebody has to do something, until `pause` comes back."""
        self.say(f"{text} {KEY}".lstrip())
        pause()
        self.say(text)

    def say(self, text: str) -> None:
        self._open.say(text)

    def wait(self, condition: Callable[[Facts], bool], what: str, timeout_s: float = SEEN_S) -> Facts:
        """Until all see it; raises WaitTimeoutError that says `what` did not happen."""
        return self._open.wait(condition, timeout_s, what)

    @property
    def _open(self) -> InBackground:
        if self._watching is None:
            raise MultirootError("nothing is shown yet")
        return self._watching
