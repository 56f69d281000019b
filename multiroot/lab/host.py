# SPDX-License-Identifier: GPL-2.0-or-later
"""What the workstation has for a lab machine."""

from __future__ import annotations

import re
import time
from pathlib import Path

from multiroot.arena.atomics import tsc
from multiroot.errors import BadRequestError
from multiroot.units import KIB, rough_size

MEMINFO = Path("/proc/meminfo")
_AVAILABLE = re.compile(r"^(?:MemAvailable|SwapFree):\s*(\d+) kB$", re.MULTILINE)

_MEASURE_S = 0.2
_TRIES = 8


def tsc_khz() -> int:
    """The frequency of the time-stamp counter, which is an emulated machine's, too. Right to some 10 ppm on a
    busy workstation.
    """
    began, begun = _tsc_at()
    time.sleep(_MEASURE_S)
    ended, end = _tsc_at()
    return round((end - begun) * 1_000_000 / (ended - began))


def _tsc_at() -> tuple[int, int]:
    """A moment, ns, and the counter then: of several readings the one that took the least time."""
    tries = []
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = tsc()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        tries.append((after - before, (before + after) // 2, count))
    _, moment, count = min(tries)
    return moment, count


def available_memory(meminfo: Path = MEMINFO) -> int:
    """Bytes that programs can still have: memory that is free or can be freed, and free swap."""
    return sum(int(found) for found in _AVAILABLE.findall(meminfo.read_text())) * KIB


def check_memory(ram: int, meminfo: Path = MEMINFO) -> None:
    """Raises BadRequestError when a machine with `ram` bytes would not fit."""
    available = available_memory(meminfo)
    if ram > available:
        raise BadRequestError(
            f"the lab machine needs {rough_size(ram, up=True)} of memory, "
            f"{rough_size(available)} are available",
            "ask for less: --vms, --vm-memory, --carve",
        )
