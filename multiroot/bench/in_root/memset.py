# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a program overwrites memory in this root: what zeroing of an ended root's memory is measured by.

`python3 -m multiroot.bench.in_root.memset` prints two rates in bytes per second: for memory that it has just
got, and for the same memory again. The first is much slower where this machine's host has to find the memory.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Callable

from multiroot.units import MIB

SIZE = 128 * MIB  # more than any cache holds
_TIMES = 3


def rates(size: int = SIZE, clock: Callable[[], int] = time.perf_counter_ns) -> tuple[float, float]:
    """Bytes per second: the first time, its page faults with it, and the best of three other times."""
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        buffer = ctypes.c_char.from_buffer(memory)
        took = []
        for value in range(1, 2 + _TIMES):
            before = clock()
            ctypes.memset(ctypes.addressof(buffer), value, size)
            took.append(clock() - before)
        del buffer  # a memory that somebody still refers to cannot be closed
    first, *again = took
    return size * 1e9 / first, size * 1e9 / min(again)


def main() -> int:
    """Entry point."""
    sys.stdout.write(" ".join(f"{rate:.0f}" for rate in rates()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
