# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP connection from the workstation to a guest that says everything back (ticker.echo)."""

from __future__ import annotations

import socket
import struct
import time

from multiroot.demo.streams import Stream
from multiroot.lab import forwards
from multiroot.lab.state import LabState

PERIOD_S = 0.02
_MESSAGE = struct.Struct("!Q")


class Echo(Stream):
    """Sends numbers over one connection, and sees to it that all of them come back in order.

    Until the first one has come back it tries again, for guest and server may still be starting. From then on
    the connection has to live.
    """

    name = "echo"

    def __init__(self, state: LabState, address: str, port: int) -> None:
        super().__init__()
        self._port = forwards.add(state, address, port).port

    def go_on(self, more: int = 50, timeout: float = 60) -> None:
        """Wait until so many more numbers have come back; fails if the connection is broken."""
        self.wait_for(more, timeout)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._talk()
            except OSError:
                if self.count:
                    raise
                self._ended.wait(1)

    def _end(self) -> None:
        """It looks after each number."""

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
                if not data:
                    raise ConnectionResetError("the guest closed the connection")
                waiting = self._take(waiting + data)

    def _take(self, data: bytes) -> bytes:
        """All whole numbers in `data`; what is left of it."""
        while len(data) >= _MESSAGE.size:
            (number,) = _MESSAGE.unpack_from(data)
            data = data[_MESSAGE.size :]
            assert number == self.count + 1, f"{number} came after {self.count}"
            self._came()
        return data
