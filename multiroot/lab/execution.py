# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands in a root over the lab's exec service (frames: see qemu-lab/image/execd.c)."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from multiroot import proc
from multiroot.errors import PeerLostError, WaitTimeoutError
from multiroot.lab.machine import EXEC_PORT

Sink = Callable[[bytes], object]
_HEAD = struct.Struct(">cI")
SILENCE_S = 60  # so long another root may say nothing: it stands still at times, or has ended without a word
_CHUNK = 1 << 16
_RELAY = "/usr/lib/multiroot/execd"


@dataclass(frozen=True)
class Result:
    """What a command left; `returncode` is 128 + N when signal N ended it."""

    returncode: int
    stdout: str
    stderr: str


class Channel(Protocol):
    """Carries frames to and from an exec service."""

    def fileno(self) -> int: ...
    def send(self, kind: bytes, data: bytes) -> None: ...
    def receive(self) -> list[tuple[bytes, bytes]]:
        """Frames that came; blocks for some bytes at most once. Raises PeerLostError at the end."""
        ...

    def close(self) -> None: ...


class _Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def take(self, data: bytes) -> list[tuple[bytes, bytes]]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + size
            if len(self._buffer) < end:
                break
            frames.append((kind, self._buffer[_HEAD.size : end]))
            self._buffer = self._buffer[end:]
        return frames


class DirectChannel:
    """To the old root, through the port that QEMU forwards."""

    def __init__(self, port: int, token: str) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port))
        except OSError as error:
            raise PeerLostError(f"the lab does not answer on port {port}: {error.strerror}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._frames = _Frames()
        self.send(b"T", token.encode())

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, kind: bytes, data: bytes) -> None:
        try:
            self._socket.sendall(_HEAD.pack(kind, len(data)) + data)
        except OSError as error:
            raise PeerLostError(f"the exec service hung up: {error.strerror}") from error

    def receive(self) -> list[tuple[bytes, bytes]]:
        try:
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            raise PeerLostError(f"the exec service hung up: {error.strerror}") from error
        if not data:
            raise PeerLostError("the exec service hung up", "is the root alive? see 'multiroot lab logs'")
        return self._frames.take(data)

    def close(self) -> None:
        self._socket.close()


class RelayChannel:
    """To another root, through a relay process in the old root: frames inside frames."""

    def __init__(
        self,
        outer: Channel,
        address: str,
        token: str,
        *,
        port: int = EXEC_PORT,
        relay: str = _RELAY,
        within: Sequence[str] = (),
    ) -> None:
        """`within` are the words before the relay's own, for one that runs in a namespace."""
        self._outer = outer
        self._address = address
        self._frames = _Frames()
        self._errors = b""
        self._answered = False
        outer.send(b"A", _words([*within, relay, "relay", address, str(port), str(SILENCE_S)]))
        self.send(b"T", token.encode())

    def fileno(self) -> int:
        return self._outer.fileno()

    def send(self, kind: bytes, data: bytes) -> None:
        self._outer.send(b"I", _HEAD.pack(kind, len(data)) + data)

    def receive(self) -> list[tuple[bytes, bytes]]:
        frames = []
        for kind, data in self._outer.receive():
            if kind == b"O":
                frames += self._frames.take(data)
            elif kind == b"E":
                self._errors += data
            elif kind == b"X" and not frames:
                what = "the root hung up that is" if self._answered else "no exec service"
                raise PeerLostError(
                    f"{what} at {self._address}", self._errors.decode(errors="replace").strip()
                )
        self._answered |= bool(frames)
        return frames

    def close(self) -> None:
        self._outer.close()


def execute(
    channel: Channel,
    argv: Sequence[str],
    *,
    stdin: int | None,
    stdout: Sink,
    stderr: Sink,
    timeout: float | None = None,
) -> int:
    """Run `argv`, passing on the file descriptor `stdin` and handing its output to the sinks; returns
    its exit code.

    Raises PeerLostError when the root goes away, WaitTimeoutError after `timeout` seconds without a
    word.
    """
    channel.send(b"A", _words(argv))
    if stdin is None:
        channel.send(b"C", b"")
    while True:
        watched = [channel.fileno(), *([] if stdin is None else [stdin])]
        readable, _, _ = select.select(watched, [], [], timeout)
        if not readable:
            raise WaitTimeoutError(f"{argv[0]} said nothing for {timeout:g} s")
        if stdin is not None and stdin in readable:
            data = os.read(stdin, _CHUNK)
            channel.send(b"I" if data else b"C", data)
            stdin = stdin if data else None
        if channel.fileno() not in readable:
            continue
        for kind, data in channel.receive():
            if kind == b"X":
                return int.from_bytes(data, "big")
            (stdout if kind == b"O" else stderr)(data)


def run(channel: Channel, argv: Sequence[str], *, timeout: float | None = 120.0) -> Result:
    """Run `argv` with no input and collect its output."""
    out, err = bytearray(), bytearray()
    code = execute(channel, argv, stdin=None, stdout=out.extend, stderr=err.extend, timeout=timeout)
    return Result(code, out.decode(errors="replace"), err.decode(errors="replace"))


class Conversation:
    """A program in a root that is told lines and says lines, as long as it is needed."""

    def __init__(self, channel: Channel, argv: Sequence[str]) -> None:
        self._channel = channel
        self._name = " ".join(argv)
        self._lines: list[str] = []
        self._rest = b""
        self._errors = b""
        self._ending = self._ended = False
        channel.send(b"A", _words(argv))

    def ask(self, line: str, timeout: float) -> str:
        """Say `line`, return the next line that comes.

        Raises PeerLostError with the program's last words when it ends, WaitTimeoutError after `timeout`
        seconds without a word.
        """
        self.say(line)
        return self.next(timeout)

    def next(self, timeout: float) -> str:
        """The next line that comes; raises as `ask` does."""
        while not self._lines:
            if not select.select([self._channel.fileno()], [], [], timeout)[0]:
                raise WaitTimeoutError(f"{self._name} said nothing for {timeout:g} s")
            for kind, data in self._channel.receive():
                self._take(kind, data)
        return self._lines.pop(0)

    def say(self, line: str) -> None:
        """Say `line` and expect nothing."""
        self._channel.send(b"I", line.encode() + b"\n")

    def end(self, timeout: float) -> None:
        """Tell it that no more comes, and wait until it has ended; raises WaitTimeoutError."""
        self._channel.send(b"C", b"")
        self._ending = True
        while not self._ended:
            if not select.select([self._channel.fileno()], [], [], timeout)[0]:
                raise WaitTimeoutError(f"{self._name} did not end within {timeout:g} s")
            for kind, data in self._channel.receive():
                self._take(kind, data)

    def _take(self, kind: bytes, data: bytes) -> None:
        if kind == b"X":
            self._ended = True
            if self._ending:
                return
            words = self._errors.decode(errors="replace").strip().splitlines()
            how = proc.how_ended_in_shell(int.from_bytes(data, "big"))
            raise PeerLostError(f"{self._name} {how}", " | ".join(words[-3:]))
        if kind == b"E":
            self._errors = (self._errors + data)[-_CHUNK:]
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [each.decode(errors="replace") for each in lines]


def _words(argv: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in argv)
