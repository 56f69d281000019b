# SPDX-License-Identifier: GPL-2.0-or-later
"""A root that dies or stands still is noticed whatever the main thread waits for."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiroot.errors import PeerLostError
from multiroot.lab.recorder import FEED_SOCKET
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm.notices import PANIC_SAID
from multiroot.workbench import watch as watching
from multiroot.workbench.watch import GuestLostError, RootLostError, Watch

LONG = 30.0  # seconds: nothing here takes so long


class Channel:
    """A root's exec service: echoes, is silent, or is gone."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour
        self._near, self._far = socket.socketpair()
        self._frames: list[tuple[bytes, bytes]] = []
        self.asked = threading.Event()

    def fileno(self) -> int:
        return self._near.fileno()

    def send(self, kind: bytes, data: bytes) -> None:
        if self._behaviour == "gone":
            raise PeerLostError("the exec service hung up")
        if kind == b"I":
            self.asked.set()
        if kind == b"I" and self._behaviour == "echo":
            self._frames.append((b"O", data))
            self._far.send(b".")

    def receive(self) -> list[tuple[bytes, bytes]]:
        self._near.recv(1)
        return [self._frames.pop(0)]

    def close(self) -> None:
        self._near.close()
        self._far.close()


@dataclass
class World:
    """A lab whose recorder says what the test tells it to."""

    folder: Path
    agent_address: str = ""
    behaviour: dict[str, str] = field(default_factory=dict)
    feed: socket.socket | None = None
    server: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))

    @property
    def state(self) -> Any:
        return SimpleNamespace(folder=self.folder)

    def channel(self, root: str) -> Channel:
        return Channel(self.behaviour.get(root, "echo"))

    def say(self, **message: object) -> None:
        if not self.feed:
            self.feed, _ = self.server.accept()
        self.feed.sendall(json.dumps({"ns": 1, **message}).encode() + b"\n")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(watching, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(watching, "SETTLE_S", 0.05)
    with tempfile.TemporaryDirectory(prefix="watch-") as folder:
        made = World(Path(folder))
        made.server.bind(str(Path(folder) / FEED_SOCKET))
        made.server.listen()
        yield made
        made.server.close()
        if made.feed:
            made.feed.close()


def trouble(
    world: World,
    patience_s: float,
    act: Callable[[Watch], object],
    kind: type[PeerLostError] = RootLostError,
) -> str:
    """What ends something that takes very long."""
    try:
        with Watch(world, patience_s) as watch:  # type: ignore[arg-type]
            act(watch)
            threading.Event().wait(LONG)
    except kind as error:
        return error.message
    return "nothing"


def test_a_panic_is_told_as_it_was_printed(world: World) -> None:
    def act(watch: Watch) -> None:
        watch.ask("new")
        world.say(console="new", text="[   48.100000] Kernel panic - not syncing: here")

    assert trouble(world, LONG, act) == "the new root panicked: Kernel panic - not syncing: here"


def test_a_root_that_is_alone_speaks_on_the_new_ones_console(world: World) -> None:
    def act(watch: Watch) -> None:
        watch.ask("old")
        watch.forget("old")
        watch.ask("old", "new", "the root after the update")
        world.say(console="old", text="[   47.000000] Kernel panic - not syncing: it has retired")
        world.say(console="new", text="[   48.100000] Kernel panic - not syncing: here")

    said = trouble(world, LONG, act)
    assert said == "the root after the update panicked: Kernel panic - not syncing: here"


def test_a_root_that_stands_still(world: World) -> None:
    def act(watch: Watch) -> None:
        watch.ask("old")
        watch.ask("new")

    world.behaviour["old"] = "silent"
    assert trouble(world, 0.2, act) == "the old root stands still: it has not answered for 0.2 s"


def test_a_root_that_is_gone(world: World) -> None:
    world.behaviour["new"] = "gone"
    said = trouble(world, LONG, lambda watch: watch.ask("new"))
    assert said == "the new root is gone: the exec service hung up"


def test_a_machine_that_ends(world: World) -> None:
    said = trouble(world, LONG, lambda watch: world.say(event="SHUTDOWN", data={"reason": "guest-reset"}))
    assert said == "the lab machine ended (shutdown guest-reset)"


def test_a_command_that_takes_too_long(world: World) -> None:
    def act(watch: Watch) -> None:
        with watch.limit(0.1, "./test.sh"):
            threading.Event().wait(LONG)

    assert trouble(world, LONG, act) == "./test.sh did not end within 0.1 s"


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What roots tell of the VM, an answer at a time; the last one again and again. An empty answer is an
    agent that is gone.
    """
    told: list[list[str]] = []

    def get(request: vm_pb2.GetVmRequest, timeout: float) -> vm_pb2.Vm:
        assert request.name == "vm1"
        whats = told.pop(0) if len(told) > 1 else told[0]
        if not whats:
            raise PeerLostError("the agent is gone")
        return vm_pb2.Vm(notices=[vm_pb2.Notice(what=what) for what in whats])

    monkeypatch.setattr(watching.client, "connect", lambda address: nullcontext(None))
    monkeypatch.setattr(watching.vm_pb2_grpc, "VmServiceStub", lambda channel: SimpleNamespace(Get=get))
    return told


def test_a_guest_that_panics(world: World, notices: list[list[str]]) -> None:
    """Its root tells, also when there was an update meanwhile. The roots are as they were."""
    notices += [["the guest rebooted"], [], ["the guest rebooted", PANIC_SAID]]
    said = trouble(world, LONG, lambda watch: watch.heed("vm1"), GuestLostError)
    assert said == "the guest's kernel panicked, its console says"


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("silent", "the guest stands still: it has not answered for 0.2 s"),
        ("gone", "the guest is gone: the exec service hung up"),
    ],
)
def test_a_guest_that_does_not_answer(world: World, behaviour: str, says: str) -> None:
    def act(watch: Watch) -> None:
        with watch.asking_guest(lambda: Channel(behaviour), 0.2):
            threading.Event().wait(LONG)

    assert trouble(world, LONG, act, GuestLostError) == says


def test_a_guest_may_be_silent_when_it_is_not_asked_any_more(world: World) -> None:
    with Watch(world, 0.2) as watch:  # type: ignore[arg-type]
        with watch.asking_guest(lambda: Channel("silent"), 0.2):
            pass
        threading.Event().wait(0.6)
        assert watch.trouble == ""


def test_nobody_waits_for_an_answer_of_the_dead(world: World) -> None:
    """The patience for one that is slow may be minutes."""
    dead = Channel("silent")
    with Watch(world, LONG) as watch, watch.asking_guest(lambda: dead, 10 * LONG):  # type: ignore[arg-type]
        assert dead.asked.wait(LONG)


def test_what_may_end_and_what_is_not_watched_are_no_loss(world: World) -> None:
    """A root that is forgotten may be silent; a panic that a guest or a former root printed is none
    of ours.
    """
    world.behaviour["new"] = "silent"
    with Watch(world, 0.2) as watch:  # type: ignore[arg-type]
        watch.ask("old")
        watch.ask("new")
        watch.forget("new")
        world.say(console="new", text="[   48.100000] Kernel panic - not syncing: here")
        with watch.limit(None, "x"):
            threading.Event().wait(0.6)
        assert watch.trouble == ""


def test_signals_are_as_they_were(world: World) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Watch(world, LONG) as watch:  # type: ignore[arg-type]
        watch.ask("old")
    assert signal.getsignal(signal.SIGUSR1) is before
