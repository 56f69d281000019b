# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP connection from the workstation to a guest that says everything back (ticker.echo)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from multiroot.lab import forwards
from multiroot.lab.state import LabState

PERIOD_S = 0.02
_MESSAGE = struct.Struct("!Q")


class Echo:
    """Sends numbers over one connection, and sees to it that all of them come back in order.

    Until the first one has come back it tries again, for guest and server may still be starting. From then on
    the connection has to live.
    """

    def __init__(self, state: LabState, address: str, port: int) -> None:
        self._port = forwards.add(state, address, port).port
        self._ended = threading.Event()
        self._moved = threading.Condition()
        self._back: list[float] = []  # when each number came back
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def count(self) -> int:
        return len(self._back)

    def go_on(self, more: int = 50, timeout: float = 60) -> None:
        """Wait until so many more numbers have come back; fails if the connection is broken."""
        wanted = self.count + more
        with self._moved:
            done = self._moved.wait_for(lambda: self._broken or self.count >= wanted, timeout)
        assert self._broken is None, f"after {self.count} numbers: {self._broken!r}"
        assert done, f"{self.count} numbers came back, then none for {timeout} s"

    def longest_gap(self) -> float:
        """The longest time in which none came back, s."""
        return max(
            (later - before for before, later in zip(self._back, self._back[1:], strict=False)), default=0
        )

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._talk()
            except (OSError, AssertionError) as error:
                if self.count:
                    with self._moved:
                        self._broken = error
                        self._moved.notify_all()
                    return
                self._ended.wait(1)

    def _talk(self) -> None:
        with socket.create_connection((forwards.HOST, self._port), timeout=None) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(PERIOD_S)
            sent, waiting = 0, b""
            due = time.monotonic()
            while not self._ended.is_set():
                if time.monotonic() >= due:
                    sent += 1
                    connection.sendall(_MESSAGE.pack(sent))
                    due += PERIOD_S
                try:
                    data = connection.recv(4096)
                except TimeoutError:
                    continue
                assert data, "the guest closed the connection"
                waiting = self._take(waiting + data)

    def _take(self, data: bytes) -> bytes:
        """All whole numbers in `data`; what is left of it."""
        while len(data) >= _MESSAGE.size:
            (number,) = _MESSAGE.unpack_from(data)
            data = data[_MESSAGE.size :]
            assert number == self.count + 1, f"{number} came after {self.count}"
            with self._moved:
                self._back.append(time.monotonic())
                self._moved.notify_all()
        return data
