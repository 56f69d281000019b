# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a connection stands is measured at the one who asks, on one connection."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from multiroot.bench import connection
from multiroot.bench.connection import Asked, Asking
from multiroot.bench.names import OURS, TRACED
from multiroot.bench.results.samples import Sample
from multiroot.bench.traced import BLACKOUT
from multiroot.errors import MultirootError

STILL_S = 0.3


class Guest:
    """Says every word back, but while it is `held`."""

    def __init__(self) -> None:
        self.here, self._there = socket.socketpair()
        self.here.settimeout(20)
        self.held = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with closing(self._there):
            while data := self._there.recv(1):
                with self.held:
                    self._there.sendall(data)

    def hang_up(self) -> None:
        self._there.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    with made.here:
        yield made


class Ours:
    """A handoff in which the guest stands still for STILL_S, a third of which is not the blackout."""

    def __init__(self, guest: Guest, name: str = OURS, blackout: str = "blackout_ns") -> None:
        self.name = name
        self._guest = guest
        self._blackout = blackout
        self.did: list[str] = []

    def prepare(self) -> None:
        self.did.append("prepare")

    def wake(self) -> None:
        self.did.append("wake")

    def hand_over(self) -> list[Sample]:
        with self._guest.held:
            time.sleep(STILL_S)
        return [Sample(self.name, 0, {self._blackout: STILL_S * 1e9 * 2 / 3})]

    def rest(self) -> None:
        self.did.append("rest")

    def close(self) -> None:
        self.did.append("close")


def test_what_stands_beyond_the_blackout_is_told(guest: Guest) -> None:
    ours, connected = Ours(guest), list[int]()

    def connect() -> socket.socket:
        connected.append(1)
        return guest.here

    asked = Asked(ours, connect)  # type: ignore[arg-type]
    asked.prepare()
    for _ in range(2):
        (sample,) = asked.sample()
        assert sample.values["still_ns"] >= STILL_S * 1e9 * 0.9
        beyond = sample.values["still_ns"] - STILL_S * 1e9 * 2 / 3 - sample.values["usual_ns"]
        assert sample.values["beyond_ns"] == pytest.approx(beyond)
    asked.close()
    assert connected == [1], "it is one connection"
    assert ours.did == ["prepare", "wake", "rest", "wake", "rest", "close"]
    assert guest.here.fileno() == -1


def test_a_handoff_with_tracepoints_on_is_compared_with_no_other(guest: Guest) -> None:
    asked = Asked(Ours(guest, TRACED, BLACKOUT), lambda: guest.here)  # type: ignore[arg-type]
    (sample,) = asked.sample()
    assert (asked.name, sample.contender) == (TRACED, TRACED)
    assert sample.values.keys() == {BLACKOUT, "traced_still_ns"}
    assert sample.values["traced_still_ns"] >= STILL_S * 1e9 * 0.9


def test_a_connection_that_ends_is_no_figure(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE_S", 5)
    with Asking(guest.here) as asking:
        asking.wait_for(3)
        guest.hang_up()
        with pytest.raises(MultirootError, match="the connection to the guest stands: "):
            asking.wait_for(10_000)
