# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's console says of the guest's own trouble, as notices."""

from __future__ import annotations

from pathlib import Path

from multiroot.clocks import Clock, raw_clock
from multiroot.vm import notices
from multiroot.vm.history import read_told
from multiroot.vm.notices import Notice


class Said:
    """Reads what the console keeper of `record` has picked out. A notice keeps the time that it was first
    read with, though the difference of two clocks is never measured twice the same.
    """

    def __init__(self, record: Path, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._known: dict[tuple[int, str], Notice | None] = {}

    def notices(self) -> list[Notice]:
        """Oldest first; times on the machine-wide clock."""
        told = read_told(self._record)
        if any(each not in self._known for each in told):
            offset = raw_clock(self._clock).offset()
            found = {each: notices.said(each[0] + offset, each[1]) for each in told}
            self._known = {each: self._known.get(each, notice) for each, notice in found.items()}
        return [notice for each in told if (notice := self._known[each])]
