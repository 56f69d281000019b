# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and lists as people write them ("256M", "2-3,6"), and back."""

from __future__ import annotations

import re

from multiroot.errors import BadRequestError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
PAGE = 4 * KIB
HUGE_PAGE = 2 * MIB

_SUFFIX = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes for "256M", "1G", "0x1000"; raises BadRequestError for anything else or for zero."""
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise BadRequestError(f"not a size: {text!r}", "write it like 256M or 1G")
    size = int(match[1], 0) * _SUFFIX[match[2].upper()]
    if size <= 0:
        raise BadRequestError(f"not a size: {text!r}", "it must be greater than zero")
    return size


def format_size(size: int) -> str:
    """The shortest exact form: 256 MiB, 1 GiB, 4 KiB, 513 B."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Logical CPU numbers of a kernel-style list ("2-3,6"), sorted, without repeats.

    Format: Documentation/admin-guide/cputopology.rst. Raises BadRequestError.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise BadRequestError(f"not a CPU list: {text!r}", "write it like 2-3,6")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= 8192:
            raise BadRequestError(f"not a CPU list: {text!r}", f"the range {part.strip()} makes no sense")
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def format_cpu_list(cpus: tuple[int, ...] | list[int]) -> str:
    """The inverse of `parse_cpu_list`: (2, 3, 6) -> "2-3,6"."""
    parts: list[str] = []
    ordered = sorted(set(cpus))
    start = 0
    for i, cpu in enumerate(ordered):
        if i + 1 == len(ordered) or ordered[i + 1] != cpu + 1:
            parts.append(str(cpu) if i == start else f"{ordered[start]}-{cpu}")
            start = i + 1
    return ",".join(parts)
