# SPDX-License-Identifier: GPL-2.0-or-later
"""The device state on the wire: frames that the taker checks before its VMM sees a byte of them. Pure.

A frame is a header, a MAC and the data. The MAC is a keyed BLAKE2b over every header and all data from the
first frame to this one, so no frame can be changed, left out, repeated or moved. The last frame, the
trailer, has no data: its position is the total length and its MAC the checksum of the whole.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator

from multiroot.errors import MultirootError

MAX_DATA = 64 << 10  # bytes in one frame: two full buffers of QEMU's
MAC_SIZE = 16
KEY_SIZE = 32

HEADER = struct.Struct(">IIQ")  # the frame's number, bytes of data in it, bytes of data before it
PREFIX_SIZE = HEADER.size + MAC_SIZE

_STATE, _GREETING = b"device state", b"greeting"  # so that one key serves two purposes


class DamagedStateError(MultirootError):
    """A device state did not arrive as it was sent."""


def greeting(key: bytes) -> bytes:
    """What a giver says first, to show that it knows the key without telling it."""
    return hashlib.blake2b(key=key, person=_GREETING, digest_size=MAC_SIZE).digest()


class Sealer:
    """Makes the frames of one device state."""

    def __init__(self, key: bytes) -> None:
        self._mac = hashlib.blake2b(key=key, person=_STATE, digest_size=MAC_SIZE)
        self._number = 0
        self._position = 0

    def seal(self, data: bytes | memoryview = b"") -> bytes:
        """The header and MAC that precede `data`, at most MAX_DATA bytes; without any: the trailer."""
        header = HEADER.pack(self._number, len(data), self._position)
        self._mac.update(header)
        self._mac.update(data)
        self._number += 1
        self._position += len(data)
        return header + self._mac.copy().digest()


class Opener:
    """Checks the frames of one device state; bytes may arrive in any portions."""

    def __init__(self, key: bytes) -> None:
        self._mac = hashlib.blake2b(key=key, person=_STATE, digest_size=MAC_SIZE)
        self._number = 0
        self._buffer = memoryview(bytearray(4 * (PREFIX_SIZE + MAX_DATA)))
        self._filled = 0
        self.position = 0  # bytes of data that were given out
        self.complete = False  # the trailer has come, too

    def space(self) -> memoryview:
        """Where the next bytes from the wire are to be put; never empty."""
        return self._buffer[self._filled :]

    def arrived(self, size: int) -> Iterator[memoryview]:
        """After `size` bytes were put into `space`: the data of each frame that is whole and right.

        A view is valid until the next is asked for. Raises DamagedStateError for what is not right.
        """
        self._filled += size
        at = 0
        while data := self._open(at):
            yield data
            at += PREFIX_SIZE + len(data)
        rest = self._filled - at
        if self.complete:
            if rest > PREFIX_SIZE:
                raise DamagedStateError("something follows its end")
            return
        self._buffer[:rest] = bytes(self._buffer[at : self._filled])
        self._filled = rest

    def end(self) -> None:
        """The wire has ended; raises DamagedStateError if the state has not."""
        if not self.complete:
            raise DamagedStateError(f"it ended after {self.position} bytes, before its trailer")

    def _open(self, at: int) -> memoryview | None:
        """The data of the frame that begins `at`; None if there is none or not all of it."""
        begin = at + PREFIX_SIZE
        if self._filled < begin:
            return None
        header = self._buffer[at : at + HEADER.size]
        number, size, position = HEADER.unpack(header)
        if size > MAX_DATA or (number, position) != (self._number, self.position):
            raise DamagedStateError(f"what comes after {self.position} bytes is not frame {self._number}")
        if self._filled < begin + size:
            return None
        data = self._buffer[begin : begin + size]
        self._mac.update(header)
        self._mac.update(data)
        if not hmac.compare_digest(self._mac.copy().digest(), self._buffer[at + HEADER.size : begin]):
            raise DamagedStateError(f"after {self.position} bytes, frame {number} has a wrong checksum")
        self._number += 1
        self.position += size
        self.complete = not size
        return data or None
