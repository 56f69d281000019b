# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks an NBD server for a disk: is it there, how large is it, what does it begin with.

No more than that: the disk's reader and writer is QEMU. The protocol is in doc/proto.md of
github.com/NetworkBlockDevice/nbd; all numbers are big-endian.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from multiroot import proc
from multiroot.errors import BadRequestError
from multiroot.net import namespace
from multiroot.vm.disk import LocalFile, NbdServer
from multiroot.vm.served import ANSWER_S, Export, ServerGoneError, Wire

Server = NbdServer | LocalFile

_GREETING = struct.Struct(">8s8sH")
_MAGIC, _OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPTION = struct.Struct(">8sII")  # magic, option, length of its data
_GO = 7
_REPLY = struct.Struct(">QIII")  # magic, option, type, length of its data
_REPLY_MAGIC = 0x3E889045565A9
_ACK, _INFO, _ERROR = 1, 3, 1 << 31
_UNKNOWN, _TLS_NEEDED = _ERROR + 6, _ERROR + 5
_EXPORT_INFO = struct.Struct(">HQH")  # type 0, size, flags
_READ_ONLY = 2
_REQUEST = struct.Struct(">IHHQQI")  # magic, flags, type, cookie, offset, length
_REQUEST_MAGIC, _ANSWER_MAGIC = 0x25609513, 0x67446698
_READ, _DISCONNECT = 0, 2
_ANSWER = struct.Struct(">IIQ")  # magic, error, cookie
_MOST_DATA = 4096  # bytes of an option's answer; those that we ask for are short


def answers(server: Server) -> bool:
    """Whether the server is there and serves the disk."""
    try:
        reach(server)
    except (ServerGoneError, BadRequestError):
        return False
    return True


def reach(server: Server) -> None:
    """Raises ServerGoneError if nobody answers, BadRequestError if that server does not serve the disk."""
    with _Connection(server) as connection:
        connection.choose()


def look(server: Server, head: int) -> Export:
    """The disk as it is now, with its first `head` bytes, or fewer if it is smaller.

    Raises ServerGoneError if nobody answers, BadRequestError if that server does not serve the disk.
    """
    with _Connection(server) as connection:
        size, flags = connection.choose()
        return Export(size, bool(flags & _READ_ONLY), connection.read(min(head, size)))


class _Connection:
    """One to a server, which has greeted us."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._wire = Wire(lambda: _connect(server), self._gone)
        try:
            magic, options, self._flags = _GREETING.unpack(self._wire.receive(_GREETING.size))
            if magic != _MAGIC or options != _OPTION_MAGIC or not self._flags & _FIXED_NEWSTYLE:
                raise self._gone("who answers there speaks no NBD that QEMU speaks")
            self._wire.send(struct.pack(">I", self._flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
        except BaseException:
            self._wire.close()
            raise

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._wire.close()

    def choose(self) -> tuple[int, int]:
        """Size and flags of the disk, which the requests that follow are about."""
        name = self._server.export.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self._wire.send(_OPTION.pack(_OPTION_MAGIC, _GO, len(data)) + data)
        found: tuple[int, int] | None = None
        while True:
            magic, _, kind, length = _REPLY.unpack(self._wire.receive(_REPLY.size))
            if magic != _REPLY_MAGIC or length > _MOST_DATA:
                raise self._gone("what it says is no NBD")
            data = self._wire.receive(length)
            if kind == _INFO and length == _EXPORT_INFO.size and data[:2] == b"\0\0":
                _, *sizes = _EXPORT_INFO.unpack(data)
                found = sizes[0], sizes[1]
            elif kind & _ERROR:
                raise self._refused(kind, data)
            elif kind == _ACK:
                if found is None:
                    raise self._gone("it does not say how large the disk is")
                return found

    def read(self, length: int) -> bytes:
        """The disk's first bytes."""
        self._wire.send(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, 1, 0, length))
        magic, error, _ = _ANSWER.unpack(self._wire.receive(_ANSWER.size))
        if magic != _ANSWER_MAGIC:
            raise self._gone("what it says is no NBD")
        if error:
            raise BadRequestError(f"{self._server} cannot be read: the server says error {error}")
        data = self._wire.receive(length)
        self._wire.send(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 2, 0, 0))
        return data

    def _refused(self, kind: int, words: bytes) -> BadRequestError:
        server = self._server
        if kind == _UNKNOWN:
            return BadRequestError(
                f"the server of {server} serves no disk of that name",
                "what it has: " + proc.hinted(f"qemu-nbd --list --bind={server.host} --port={server.port}")
                if isinstance(server, NbdServer)
                else "",
            )
        if kind == _TLS_NEEDED:
            return BadRequestError(f"the server of {server} wants TLS, which VMs' disks do without")
        said = " ".join(words.decode(errors="replace").split())[:200]
        return BadRequestError(f"the server of {server} refuses it: {said or f'error {kind - _ERROR}'}")

    def _gone(self, why: str) -> ServerGoneError:
        server = self._server
        if isinstance(server, LocalFile):
            with suppress(FileNotFoundError):
                why = server.away.read_text()
            return ServerGoneError(
                f"no root serves the disk {server}: {why}",
                f"it has to be on a disk that a root has mounted: multiroot lab exec -- ls -l {server.path}",
            )
        return ServerGoneError(
            f"the server of the disk {server} does not answer: {why}",
            "serve it: "
            + proc.hinted(
                f"qemu-nbd --persistent --shared=4 --port={server.port}"
                f" --export-name={server.export or 'NAME'} -f raw FILE"
            ),
        )


def _connect(server: Server) -> socket.socket:
    """To who serves it, or to the door of a file that a root serves. Raises OSError."""
    if isinstance(server, NbdServer):
        return namespace.connect(server.host, server.port, ANSWER_S)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(ANSWER_S)
        made.connect(str(server.door))
    except BaseException:
        made.close()
        raise
    return made
