# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices, while something else is going on, that a root or the guest has died or stands still.

The consoles are listened to, so that a panic is known when it has been printed; of a guest's its root tells.
A kernel that hangs says nothing, and neither does one that is well and idle, so each root is asked something
all the time, and so is a guest that takes commands.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from types import FrameType, TracebackType
from typing import Self

from multiroot.errors import MultirootError, PeerLostError, WaitTimeoutError
from multiroot.lab.boot import Feed
from multiroot.lab.execution import Channel, Conversation
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import FEED_SOCKET
from multiroot.lab.watchdog import how_ended
from multiroot.rpc import client
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.verdict.lines import parse
from multiroot.verdict.signs import Kind, kind_of
from multiroot.vm.notices import PANICKED

ASK_EVERY_S = 1.0
SETTLE_S = 2.0  # what follows a panic is its trace
_ANSWER_S = 10.0  # for an agent on a busy computer
_GLANCE_NS = 250_000_000
_ECHO = ("sh", "-c", "while read -r word; do echo $word; done")


class RootLostError(PeerLostError):
    """A root has died or stands still."""


class GuestLostError(PeerLostError):
    """The guest has died or stands still; the roots may well live."""


class Watch:
    """Raises RootLostError in the main thread, whatever that waits for, as soon as a watched root is lost;
    GuestLostError for a guest.
    """

    def __init__(self, lab: Lab, patience_s: float) -> None:
        self._lab = lab
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._asked: dict[str, threading.Event] = {}
        self._speakers: dict[
            str, tuple[str, str]
        ] = {}  # of those asked: the console, and what each is called
        self._main = threading.main_thread().ident or 0
        self._deadline_ns = 0
        self._late = ""
        self._guest_lost = False
        self.trouble = ""

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGUSR1, self._raise)
        self._listener = self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # From here on nothing is raised, also by a thread that is about to. Those that ask are not waited
        # for: one may have asked somebody who is dead.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        with self._lock:
            self._stop.set()
        for root in list(self._asked):
            self.forget(root)
        self._listener.join()
        signal.signal(signal.SIGUSR1, self._before)

    def ask(self, root: str, console: str = "", called: str = "") -> None:
        """Ask this root something from now on, until `forget`. After an update a root is reached where the
        old one was, and speaks on another `console`. `called` is what a loss says it is.
        """
        who = called or f"the {root} root"
        self._speakers[root] = console or root, who
        self._asked[root] = threading.Event()
        reach, stopped = partial(self._lab.channel, root), self._asked[root]
        self._start(partial(self._question, who, reach, stopped, self._patience_s, guest=False))

    def forget(self, root: str) -> None:
        """It may end from now on."""
        self._speakers.pop(root, None)
        if stopped := self._asked.pop(root, None):
            stopped.set()

    def heed(self, name: str) -> None:
        """Hear from now on of this VM, in whatever root it runs, that its kernel panics."""
        self._start(partial(self._heed, name))

    @contextmanager
    def asking_guest(self, reach: Callable[[], Channel], patience_s: float) -> Iterator[None]:
        """Ask the guest that `reach` leads to something as long as the body takes."""
        stopped = threading.Event()
        self._start(partial(self._question, "the guest", reach, stopped, patience_s, guest=True))
        try:
            yield
        finally:
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

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

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
                        who = self._speaker(message["console"])
                        if not said and kind_of(text) is Kind.PANIC and who:
                            panicked_ns, said = now, f"{who} panicked: {text}"

    def _speaker(self, console: str) -> str:
        """Who speaks there; "" for one that may end."""
        return dict(tuple(self._speakers.values())).get(console, "")

    def _question(
        self,
        who: str,
        reach: Callable[[], Channel],
        stopped: threading.Event,
        patience_s: float,
        *,
        guest: bool,
    ) -> None:
        try:
            with closing(reach()) as channel:
                talk = Conversation(channel, _ECHO)
                while not self._ended(stopped, ASK_EVERY_S):
                    talk.ask("?", patience_s)
        except WaitTimeoutError:
            if not stopped.is_set():
                self._lost(f"{who} stands still: it has not answered for {patience_s:g} s", guest=guest)
        except MultirootError as error:
            # A panic or the end of the machine says more, and is on its way.
            if not self._ended(stopped, SETTLE_S + 1):
                self._lost(f"{who} is gone: {error.message}", guest=guest)

    def _ended(self, stopped: threading.Event, seconds: float) -> bool:
        """Whether there is nothing to watch any more, at the latest after that time."""
        return stopped.wait(seconds) or self._stop.is_set()

    def _heed(self, name: str) -> None:
        """A root that does not answer is noticed by others; after an update it is another one that does."""
        while not self._stop.wait(ASK_EVERY_S):
            with suppress(MultirootError), translated("the root"):
                self._heed_at_one(name)

    def _heed_at_one(self, name: str) -> None:
        """Ask the root that answers for the VM's notices, until one is of a panic."""
        request = vm_pb2.GetVmRequest(name=name)
        with client.connect(self._lab.agent_address) as channel:
            stub = vm_pb2_grpc.VmServiceStub(channel)
            while not self._stop.wait(ASK_EVERY_S):
                told = stub.Get(request, timeout=_ANSWER_S).notices
                panics = [each.what for each in told if each.what.startswith(PANICKED)]
                if panics and not self._stop.wait(SETTLE_S):
                    self._lost(panics[0], guest=True)

    def _lost(self, what: str, guest: bool = False) -> None:
        with self._lock:
            if self.trouble or self._stop.is_set():
                return
            self.trouble, self._guest_lost = what, guest
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        raise (GuestLostError if self._guest_lost else RootLostError)(self.trouble)
