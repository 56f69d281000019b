# SPDX-License-Identifier: GPL-2.0-or-later
"""The last lines that kernels have said, and those among them that nobody wants to see."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from multiroot.verdict.health import Health, judge
from multiroot.vm.oom import KMSG

LINES = 8
SPLATS = 8
LONGEST = 160  # characters of a line
_RECORD_SIZE = 8192
_RECORDS_MOST = 256  # at once


class Lines:
    """A bounded tail of lines, and of the splats among them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)
        self._splats: deque[str] = deque(maxlen=SPLATS)

    @property
    def last(self) -> list[str]:
        """The newest, oldest first."""
        return list(self._lines)

    @property
    def splats(self) -> list[str]:
        """The newest that tell of a part of the kernel that has crashed, or does not get on."""
        return list(self._splats)

    def add(self, lines: Iterable[str]) -> None:
        """Take in more."""
        for line in lines:
            shown = "".join(letter if letter.isprintable() else " " for letter in line)[:LONGEST].rstrip()
            if not shown:
                continue
            self._lines.append(shown)
            if judge([_without_time(shown)]).health > Health.WELL:
                self._splats.append(shown)


class KernelTail:
    """What this root's kernel says from now on (Documentation/ABI/testing/dev-kmsg)."""

    def __init__(self, log: Path = KMSG) -> None:
        self.lines = Lines()
        self._file = -1
        # A root without that file has no lines to tell.
        with suppress(OSError):
            self._file = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def read(self) -> None:
        """Take in what was said since the last call."""
        said = []
        for _ in range(_RECORDS_MOST if self._file >= 0 else 0):
            try:
                record = os.read(self._file, _RECORD_SIZE)
            except BrokenPipeError:
                # Overwritten while we read; the next read goes on behind.
                continue
            except OSError:
                break
            if not record:
                break
            said.append(record.decode(errors="replace").partition(";")[2].partition("\n")[0])
        self.lines.add(said)

    def close(self) -> None:
        """Read no more."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _without_time(line: str) -> str:
    """A line of a serial console has the kernel's time in front: `[    1.234567] text`."""
    if line.startswith("["):
        return line.partition("] ")[2] or line
    return line
