# SPDX-License-Identifier: GPL-2.0-or-later
"""Which memory a root takes over when it is the only one left: pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

from multiroot.ranges import Range, align_down, align_up, merge, subtract
from multiroot.units import MIB


def heritage(ram: Iterable[Range], used: Iterable[Range], block: int, unit: int) -> tuple[Range, ...]:
    """What to add of the machine's `ram`, in pieces of at most `unit` bytes that end at its multiples.

    `used` is all that this root's kernel has a name for. Only whole memory blocks of `block` bytes can be
    added; the rest, and the first MiB, stay unused. `unit` is a multiple of `block`.
    """
    pieces: list[Range] = []
    for free in subtract(merge(ram), [Range(0, MIB), *used]):
        at, end = align_up(free.base, block), align_down(free.end, block)
        while at < end:
            stop = min(end, align_down(at, unit) + unit)
            pieces.append(Range.between(at, stop))
            at = stop
    return tuple(pieces)
