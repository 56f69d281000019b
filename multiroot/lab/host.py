# SPDX-License-Identifier: GPL-2.0-or-later
"""What the workstation has for a lab machine."""

from __future__ import annotations

import re
from pathlib import Path

from multiroot.errors import BadRequestError
from multiroot.units import KIB, MIB, format_size

MEMINFO = Path("/proc/meminfo")
_AVAILABLE = re.compile(r"^(?:MemAvailable|SwapFree):\s*(\d+) kB$", re.MULTILINE)


def available_memory(meminfo: Path = MEMINFO) -> int:
    """Bytes that programs can still have: memory that is free or can be freed, and free swap."""
    return sum(int(found) for found in _AVAILABLE.findall(meminfo.read_text())) * KIB


def check_memory(ram: int, meminfo: Path = MEMINFO) -> None:
    """Raises BadRequestError when a machine with `ram` bytes would not fit."""
    available = available_memory(meminfo)
    if ram > available:
        left = format_size(available // MIB * MIB)
        raise BadRequestError(
            f"the lab machine needs {format_size(ram)} of memory, {left} are available",
            "ask for less: --vms, --vm-memory, --carve",
        )
