# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a program overwrites memory in this root: what zeroing of an ended root's memory is measured by.

`python3 -m multiroot.bench.in_root.memset` prints bytes per second.
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


def rate(size: int = SIZE, clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Bytes per second, the best of three. All pages are mapped before it begins."""
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE) as memory:
        buffer = ctypes.c_char.from_buffer(memory)
        took = []
        for value in range(1, 1 + _TIMES):
            before = clock()
            ctypes.memset(ctypes.addressof(buffer), value, size)
            took.append(clock() - before)
        del buffer  # a memory that somebody still refers to cannot be closed
    return size * 1e9 / min(took)


def main() -> int:
    """Entry point."""
    sys.stdout.write(f"{rate():.0f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
