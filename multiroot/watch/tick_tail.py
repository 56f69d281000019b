# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's ticks as its console keeper writes them down: now and then all that are new, in one go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from multiroot.clocks import raw_clock
from multiroot.vm import ticks
from multiroot.vm.console import RECORD
from multiroot.vm.history import Piece, parse
from multiroot.vm.ticks import Stretch

AT_ONCE = 256 << 10  # bytes; what a guest says beyond that waits for the next look


@dataclass
class _Place:
    """How far a segment of the keeper's file was read; `end` is the guest's offset there, None if unknown."""

    inode: int
    offset: int
    end: int | None


class TickTail:
    """Reads a keeper's file on and on. Nothing is woken up by a tick."""

    def __init__(self, record: Path, clock: Callable[[], int], *, whole: bool) -> None:
        """`clock` is the machine-wide one. Unless `whole`, what is in the file already is left out."""
        self._record = record
        self._to_machine = raw_clock(clock)
        self._place: _Place | None = None
        self._whole = whole
        self._rest = b""  # of the guest's output: a line that has no end yet
        self._begun = False  # a line end was seen, so the next line is whole

    def read(self) -> Stretch:
        """The ticks since the last call; `tail` is what there is of the next line. `head` is told once, if
        the console was read from its beginning.
        """
        pieces = self._pieces()
        offset = self._to_machine.offset() if pieces else 0
        seen = ticks.parse((piece.at_ns + offset, piece.data) for piece in pieces)
        if not self._begun:
            after = Stretch(self._rest).then(seen)
            if after.head_ns is None:
                self._rest = after.head
                return Stretch()
            self._begun, self._rest = True, after.tail
            return after if self._whole else replace(after, head=b"", head_ns=None)
        after = Stretch(b"", 0, (), self._rest).then(seen)
        self._rest = after.tail
        return replace(after, head=b"", head_ns=None)

    def _pieces(self) -> list[Piece]:
        """What the keeper has written since, whole records only."""
        try:
            with self._record.open("rb") as file:
                status = os.fstat(file.fileno())
                if self._place is None:
                    start = 0 if self._whole else status.st_size
                    self._place = _Place(status.st_ino, start, 0 if self._whole else None)
                if status.st_ino == self._place.inode:
                    return self._read_on(file.fileno(), self._place)
        except FileNotFoundError:
            return []
        return self._next_segment(status.st_ino, self._place)

    def _read_on(self, descriptor: int, place: _Place) -> list[Piece]:
        pieces = parse(os.pread(descriptor, AT_ONCE, place.offset))
        for piece in pieces:
            if place.end is not None and piece.start != place.end:
                # We began in the middle of a record: go on where the file ends by now.
                self._place, self._begun, self._rest = None, False, b""
                self._whole = False
                return []
            place.end = piece.end
            place.offset += RECORD.size + len(piece.data)
        return pieces

    def _next_segment(self, inode: int, place: _Place) -> list[Piece]:
        """The keeper has begun another one; what was left of the one before is in *.1."""
        rest: list[Piece] = []
        old = self._record.with_name(self._record.name + ".1")
        try:
            with old.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == place.inode:
                    rest = self._read_on(file.fileno(), place)
        except FileNotFoundError:
            # The VM's folder is just being removed.
            return []
        if self._place is place and len(rest) * RECORD.size < AT_ONCE:
            self._place = _Place(inode, 0, None)
        return rest


class TickTails:
    """One for each console that there is. The first look begins at the end of what guests have said. A
    console that appears later is read from its beginning.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        """`clock` is the machine-wide one."""
        self._clock = clock
        self._tails: dict[str, tuple[int, TickTail]] = {}
        self._first = True

    def restart(self) -> None:
        """The next look is the first one."""
        self._tails.clear()
        self._first = True

    def read(self, records: Mapping[str, Path]) -> Iterator[tuple[str, Stretch]]:
        """What the guests have ticked since the last call, by VM; `records` are their keepers' files."""
        for name, record in records.items():
            folder = _inode(record.parent)
            known = self._tails.get(name)
            # A VM that comes a second time has a folder of its own again.
            if known is None or known[0] != folder:
                known = (folder, TickTail(record, self._clock, whole=not self._first))
                self._tails[name] = known
            stretch = known[1].read()
            if stretch.ticks or stretch.head_ns is not None or stretch.tail:
                yield name, stretch
        self._first = False
        for name in self._tails.keys() - records.keys():
            del self._tails[name]


def _inode(folder: Path) -> int:
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return 0
