# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins a terminal to a root's serial console, through the recorder."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multiroot.errors import BadRequestError

DETACH = b"\x1d"  # Ctrl-]
_CHUNK = 1 << 16


def attach(path: Path) -> None:
    """Pass keys and output on until the detach key, the end of our input, or the end of the machine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        try:
            console.connect(str(path))
        except OSError as error:
            raise BadRequestError(f"no console at {path}: {error.strerror}", "does the lab run?") from error
        with _raw(sys.stdin.fileno()):
            _join(console, sys.stdin.fileno(), sys.stdout.fileno())


def _join(console: socket.socket, keys: int, screen: int) -> None:
    while True:
        readable, _, _ = select.select([console.fileno(), keys], [], [])
        if console.fileno() in readable:
            data = console.recv(_CHUNK)
            if not data:
                return
            os.write(screen, data)
        if keys in readable:
            data = os.read(keys, _CHUNK)
            console.sendall(data.partition(DETACH)[0])
            if not data or DETACH in data:
                return


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """The terminal in raw mode, and as it was afterwards; anything else is left alone."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
