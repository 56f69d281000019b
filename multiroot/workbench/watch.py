# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices, while something else is going on, that a root has died or stands still.

The consoles are listened to, so that a panic is known when it has been printed. A kernel that hangs says
nothing, and neither does one that is well and idle, so each root is asked something all the time.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType, TracebackType
from typing import Self

from multiroot.errors import MultirootError, PeerLostError, WaitTimeoutError
from multiroot.lab.boot import Feed
from multiroot.lab.execution import Conversation
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import FEED_SOCKET
from multiroot.lab.watchdog import how_ended
from multiroot.verdict.lines import parse
from multiroot.verdict.signs import Kind, kind_of

ASK_EVERY_S = 1.0
SETTLE_S = 2.0  # what follows a panic is its trace
_GLANCE_NS = 250_000_000
_ECHO = ("sh", "-c", "while read -r word; do echo $word; done")


class RootLostError(PeerLostError):
    """A root has died or stands still."""


class Watch:
    """Raises RootLostError in the main thread, whatever that waits for, as soon as a watched root is lost."""

    def __init__(self, lab: Lab, patience_s: float) -> None:
        self._lab = lab
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._asked: dict[str, threading.Event] = {}
        self._consoles: dict[str, str] = {}  # of those that are asked
        self._threads: list[threading.Thread] = []
        self._main = threading.main_thread().ident or 0
        self._deadline_ns = 0
        self._late = ""
        self.trouble = ""

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGUSR1, self._raise)
        self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # From here on nothing is raised, also by a thread that is about to.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._stop.set()
        for root in list(self._asked):
            self.forget(root)
        for thread in self._threads:
            thread.join()
        signal.signal(signal.SIGUSR1, self._before)

    def ask(self, root: str, console: str = "") -> None:
        """Ask this root something from now on, until `forget`. After an update a root is reached where the
        old one was, and speaks on another `console`.
        """
        self._consoles[root] = console or root
        self._asked[root] = threading.Event()
        self._start(lambda stopped=self._asked[root]: self._question(root, stopped))

    def forget(self, root: str) -> None:
        """It may end from now on."""
        self._consoles.pop(root, None)
        if stopped := self._asked.pop(root, None):
            stopped.set()

    @contextmanager
    def limit(self, seconds: float | None, what: str) -> Iterator[None]:
        """The body may take so long; `what` is what takes it."""
        self._late = f"{what} did not end within {seconds:g} s" if seconds else ""
        self._deadline_ns = time.monotonic_ns() + int(seconds * 1e9) if seconds else 0
        try:
            yield
        finally:
            self._deadline_ns = 0

    def _start(self, work: object) -> None:
        thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        panicked_ns, said = 0, ""
        with closing(Feed(self._lab.state.folder / FEED_SOCKET)) as feed:
            while not self._stop.is_set():
                now = time.monotonic_ns()
                if panicked_ns and now - panicked_ns > SETTLE_S * 1e9:
                    self._lost(said)
                if self._deadline_ns and now > self._deadline_ns:
                    self._lost(self._late)
                messages = feed.wait(now + _GLANCE_NS)
                if messages is None:
                    self._lost("the lab machine ended")
                    return
                for message in messages:
                    if ended := how_ended(message):
                        self._lost(said or f"the lab machine ended ({ended})")
                    elif "console" in message:
                        text = parse(message["text"]).text
                        if not said and kind_of(text) is Kind.PANIC and self._watched(message["console"]):
                            panicked_ns, said = now, f"the {message['console']} root panicked: {text}"

    def _watched(self, console: str) -> bool:
        return console in tuple(self._consoles.values())

    def _question(self, root: str, stopped: threading.Event) -> None:
        try:
            with closing(self._lab.channel(root)) as channel:
                talk = Conversation(channel, _ECHO)
                while not stopped.wait(ASK_EVERY_S):
                    talk.ask("?", self._patience_s)
        except WaitTimeoutError:
            if not stopped.is_set():
                self._lost(f"the {root} root stands still: it has not answered for {self._patience_s:g} s")
        except MultirootError as error:
            # A panic or the end of the machine says more, and is on its way.
            if not stopped.wait(SETTLE_S + 1):
                self._lost(f"the {root} root is gone: {error.message}")

    def _lost(self, what: str) -> None:
        with self._lock:
            if self.trouble or self._stop.is_set():
                return
            self.trouble = what
        signal.pthread_kill(self._main, signal.SIGUSR1)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        raise RootLostError(self.trouble)
