# SPDX-License-Identifier: GPL-2.0-or-later
"""What a console keeper wrote down, read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiroot.clocks import Clock, raw_clock
from multiroot.vm import ticks
from multiroot.vm.console import RECORD, TOLD_SUFFIX
from multiroot.vm.ticks import Stretch


@dataclass(frozen=True)
class Piece:
    """Bytes that came in one read, and when, in ns of CLOCK_MONOTONIC_RAW; `start` is their offset."""

    at_ns: int
    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


def read_history(path: Path, start: int = 0) -> list[Piece]:
    """Pieces that begin at offset `start` or behind it, oldest first, as far back as they are kept.

    Right also while the keeper writes (whole records only) or starts a new segment.
    """
    while True:
        before = _identity(path)
        data = _bytes(path.with_name(path.name + ".1")) + _bytes(path)
        if _identity(path) == before:
            return [piece for piece in parse(data) if piece.start >= start]


def read_stretch(path: Path, clock: Clock) -> Stretch:
    """The ticks in what is kept, on `clock`."""
    offset = raw_clock(clock).offset()
    return ticks.parse((piece.at_ns + offset, piece.data) for piece in read_history(path))


def read_told(path: Path) -> list[tuple[int, str]]:
    """What the keeper of this file has kept of lines with one of console.SIGNS: when each came, in ns of
    CLOCK_MONOTONIC_RAW, and the line.
    """
    lines = _bytes(path.with_name(path.name + TOLD_SUFFIX)).splitlines()
    return [
        (int(at_ns), line.decode(errors="replace"))
        for at_ns, _, line in (each.partition(b" ") for each in lines)
    ]


def parse(data: bytes) -> list[Piece]:
    """The whole records in `data`."""
    pieces: list[Piece] = []
    position = 0
    while position + RECORD.size <= len(data):
        at_ns, start, length = RECORD.unpack_from(data, position)
        position += RECORD.size
        if position + length > len(data):
            break
        pieces.append(Piece(at_ns, start, data[position : position + length]))
        position += length
    return pieces


def _identity(path: Path) -> int | None:
    """Changes when the keeper renames the segment and begins another."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
