# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of the extent table. At most one process of one root holds it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from multiroot.arena.atomics import Memory
from multiroot.arena.layout import LOCK_OFFSET
from multiroot.errors import WaitTimeoutError

_PID_BITS = 24  # a pid is at most 2^22
_SEQUENCE_BITS = 24
_RETRY_S = 0.001


class TableLock:
    """Root (16 bits), pid (24) and a sequence number (24) in one word; 0 when free.

    Whoever finds the holder dead takes the lock over: a process of the same root by looking for its pid,
    another root by asking `root_is_dead`. Table changes commit with one word each, so a dead holder
    leaves a table that is right, at worst with a half-freed entry (see Arena.allocate).
    """

    def __init__(self, memory: Memory, root: int, root_is_dead: Callable[[int], bool]) -> None:
        self._memory = memory
        self._root = root
        self._root_is_dead = root_is_dead

    @contextmanager
    def held(self, timeout_s: float = 5.0) -> Iterator[None]:
        """Hold the lock during the body; raises WaitTimeoutError naming the holder.

        There is no event that both kernels could wait for; the lock is held for microseconds, so look again.
        """
        mine = self._acquire(time.monotonic() + timeout_s)
        try:
            yield
        finally:
            self._memory.compare_exchange(LOCK_OFFSET, mine, 0)

    def _acquire(self, deadline: float) -> int:
        while True:
            seen = self._memory.load(LOCK_OFFSET)
            if seen == 0 or self._holder_is_dead(seen):
                mine = self._next(seen)
                if self._memory.compare_exchange(LOCK_OFFSET, seen, mine) == seen:
                    return mine
            elif time.monotonic() > deadline:
                root, pid = _holder(seen)
                raise WaitTimeoutError(f"the arena's table is locked by process {pid} of root {root}")
            else:
                time.sleep(_RETRY_S)

    def _next(self, seen: int) -> int:
        # The sequence tells two holdings of one process apart, so that breaking a lock twice cannot succeed.
        sequence = (time.monotonic_ns() ^ seen) & ((1 << _SEQUENCE_BITS) - 1)
        return (self._root << _PID_BITS | os.getpid()) << _SEQUENCE_BITS | sequence

    def _holder_is_dead(self, word: int) -> bool:
        root, pid = _holder(word)
        if root == self._root:
            return not Path(f"/proc/{pid}").exists()
        return self._root_is_dead(root)


def _holder(word: int) -> tuple[int, int]:
    """Root and pid in a lock word."""
    return word >> (_PID_BITS + _SEQUENCE_BITS), word >> _SEQUENCE_BITS & ((1 << _PID_BITS) - 1)
