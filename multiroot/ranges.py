# SPDX-License-Identifier: GPL-2.0-or-later
"""Arithmetic on physical address ranges; all addresses and sizes in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PHYS_BITS = 52  # MAXPHYADDR can not be larger (Intel SDM vol. 3A, 4.1.4)


@dataclass(frozen=True, order=True)
class Range:
    """`size` bytes of physical address space from `base`; never empty, never past 2**52."""

    base: int
    size: int

    def __post_init__(self) -> None:
        if self.base < 0 or self.size <= 0 or self.base + self.size > 1 << PHYS_BITS:
            raise ValueError(f"not a physical range: base {self.base:#x}, size {self.size:#x}")

    @classmethod
    def between(cls, start: int, end: int) -> Range:
        """The range [start, end)."""
        return cls(start, end - start)

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.base + self.size

    def contains(self, other: Range) -> bool:
        return self.base <= other.base and other.end <= self.end

    def overlaps(self, other: Range) -> bool:
        return self.base < other.end and other.base < self.end

    def intersection(self, other: Range) -> Range | None:
        base, end = max(self.base, other.base), min(self.end, other.end)
        return Range.between(base, end) if base < end else None

    def __str__(self) -> str:
        return f"{self.base:#x}-{self.end - 1:#x}"


def align_up(value: int, alignment: int) -> int:
    """`alignment` is a power of two."""
    return (value + alignment - 1) & ~(alignment - 1)


def align_down(value: int, alignment: int) -> int:
    """`alignment` is a power of two."""
    return value & ~(alignment - 1)


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same addresses as sorted ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for item in sorted(ranges):
        if merged and item.base <= merged[-1].end:
            merged[-1] = Range.between(merged[-1].base, max(merged[-1].end, item.end))
        else:
            merged.append(item)
    return tuple(merged)


def cut(ranges: Iterable[Range], at: Iterable[int]) -> tuple[Range, ...]:
    """The same addresses in the same order, with a border at each of `at` that lies inside."""
    borders = sorted(set(at))
    pieces: list[Range] = []
    for item in ranges:
        ends = [*(border for border in borders if item.base < border < item.end), item.end]
        pieces += map(Range.between, [item.base, *ends[:-1]], ends)
    return tuple(pieces)


def subtract(ranges: Iterable[Range], holes: Iterable[Range]) -> tuple[Range, ...]:
    """What of `ranges` is in none of `holes`, sorted and merged."""
    left = list(merge(ranges))
    for hole in merge(holes):
        pieces: list[Range] = []
        for item in left:
            if not item.overlaps(hole):
                pieces.append(item)
                continue
            if item.base < hole.base:
                pieces.append(Range.between(item.base, hole.base))
            if hole.end < item.end:
                pieces.append(Range.between(hole.end, item.end))
        left = pieces
    return tuple(left)


def intersect(ranges: Iterable[Range], others: Iterable[Range]) -> tuple[Range, ...]:
    """What is in one of `ranges` and in one of `others`, sorted and merged."""
    other = merge(others)
    found = (item.intersection(piece) for item in merge(ranges) for piece in other)
    return merge(piece for piece in found if piece)
