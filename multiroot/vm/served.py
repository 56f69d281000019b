# SPDX-License-Identifier: GPL-2.0-or-later
"""What servers of disks have in common, whatever they speak."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from multiroot.errors import ConflictError

ANSWER_S = 5.0  # a server may take so long for each answer


class ServerGoneError(ConflictError):
    """Nobody who serves disks answers there."""


@dataclass(frozen=True)
class Export:
    """A disk as its server shows it: its size in bytes, and what it begins with."""

    size: int
    read_only: bool
    head: bytes


class Wire:
    """A connection to a server; what goes wrong with it raises what `gone` makes of the reason."""

    def __init__(self, connect: Callable[[], socket.socket], gone: Callable[[str], ServerGoneError]) -> None:
        self._gone = gone
        try:
            self._sock = connect()
        except OSError as error:
            raise self._lost(error) from error

    def close(self) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        """All of it."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, length: int) -> bytes:
        """So many bytes."""
        data = b""
        while len(data) < length:
            try:
                piece = self._sock.recv(length - len(data))
            except OSError as error:
                raise self._lost(error) from error
            if not piece:
                raise self._gone("it has closed the connection")
            data += piece
        return data

    def _lost(self, error: OSError) -> ServerGoneError:
        return self._gone(error.strerror or str(error))
