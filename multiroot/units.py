# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads sizes and CPU lists as people write them ("256M", "2-3,6"), and writes them."""

from __future__ import annotations

import re

from multiroot.errors import BadRequestError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
PAGE = 4 * KIB
HUGE_PAGE = 2 * MIB

_SUFFIX = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"(0x[0-9a-f]+|[0-9]+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_LARGEST = (1 << 64) - 1  # sizes travel as 64-bit numbers
_DIGITS = 32  # more than any size has; Python refuses to convert thousands of them

_CPUS = re.compile(r"\s*([0-9]{1,19})(?:-([0-9]{1,19}))?\s*")
_MAX_CPUS = 8192
_COUNT = re.compile("[0-9]{1,10}")


def parse_size(text: str) -> int:
    """Bytes for "256M", "1G", "0x1000", "256 MiB"; raises BadRequestError for anything else or for zero.

    A leading zero is refused, because the kernel reads such a number as octal.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match or len(match[1]) > _DIGITS:
        raise BadRequestError(f"not a size: {text!r}", "write it like 256M or 1G")
    digits = match[1]
    if digits[0] == "0" and digits[1:].isdecimal():
        raise BadRequestError(f"not a size: {text!r}", "write it without the leading zero")
    size = int(digits, 0) * _SUFFIX[match[2].upper()]
    if size == 0:
        raise BadRequestError(f"not a size: {text!r}", "it must be greater than zero")
    if size > _LARGEST:
        raise BadRequestError(f"not a size: {text!r}", "it must be less than 2^64 bytes")
    return size


def format_size(size: int) -> str:
    """The size in the largest unit that leaves no remainder: 256 MiB, 1 GiB, 4 KiB, 513 B."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def typed_size(size: int) -> str:
    """The same as one word of a command line: 256M, 1G."""
    return format_size(size).replace(" ", "").removesuffix("B").removesuffix("i")


def rough_size(size: int, *, up: bool = False) -> str:
    """The size with one digit behind the point, never more than it is: 17.8 GiB; with `up`, never less."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            tenths = -(-size * 10 // unit) if up else size * 10 // unit
            return f"{tenths // 10}.{tenths % 10} {name}"
    return f"{size} B"


def parse_count(text: str, most: int = 1 << 31) -> int:
    """A number of things, from 1 to `most`; raises BadRequestError for anything else."""
    digits = text.strip()
    if not _COUNT.fullmatch(digits) or not 1 <= int(digits) <= most:
        raise BadRequestError(f"not a number from 1 to {most}: {text!r}")
    return int(digits)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of a list in the kernel's format ("2-3,6"), sorted, without repeats.

    An empty list is valid. Format: Documentation/admin-guide/cputopology.rst. Raises BadRequestError.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = _CPUS.fullmatch(part)
        if not match:
            raise BadRequestError(f"not a CPU list: {text!r}", "write it like 2-3,6")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise BadRequestError(f"not a CPU list: {text!r}", f"{part.strip()} ends before it begins")
        if last >= _MAX_CPUS:
            raise BadRequestError(f"not a CPU list: {text!r}", f"a CPU's number is less than {_MAX_CPUS}")
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
