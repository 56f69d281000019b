# SPDX-License-Identifier: GPL-2.0-or-later
"""The newest ticks that were told, for those whose stream broke while they were on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from multiroot.watch.told import Seen

MOST = 16384  # ticks of all guests: of one that ticks a hundred times a second, nearly three minutes


class KeptTicks:
    """Bounded; the oldest go first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: deque[Seen] = deque()
        self._count = 0

    def add(self, seen: Seen) -> None:
        """Keep what is being told."""
        self._kept.append(seen)
        self._count += _weight(seen)
        while self._count > self._most and len(self._kept) > 1:
            self._count -= _weight(self._kept.popleft())

    def clear(self) -> None:
        """Keep nothing of it."""
        self._kept.clear()
        self._count = 0

    def since(self, times: Mapping[str, int]) -> Iterator[Seen]:
        """What came of each guest after a time (TSC clock, ns), oldest first; nothing of other guests."""
        for seen in tuple(self._kept):
            ticks = seen.stretch.ticks
            if seen.vm in times and ticks and ticks[-1].seen_ns > times[seen.vm]:
                yield seen


def _weight(seen: Seen) -> int:
    return max(1, len(seen.stretch.ticks))
