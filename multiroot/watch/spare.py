# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of a machine's RAM no root has, by what all roots tell of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from multiroot.ranges import PHYS_BITS, Range, subtract
from multiroot.watch.facts import MemoryKind, RangeFacts

# A root's own kernel does not list as RAM what it was booted with: boot area, shared area, tables. Together
# they are smaller than this, and what a new root adopts is larger: a memory block.
SLIVER = 16 << 20  # bytes
_RAM = (MemoryKind.SYSTEM, MemoryKind.CARVE)


def with_spare(known: Iterable[RangeFacts], spare: Iterable[RangeFacts]) -> list[RangeFacts]:
    """All of `known` and what is left of `spare` beside it, in the order of their addresses.

    `spare` is what each of some roots takes for nobody's. A sliver of it belongs to the RAM that it touches.
    """
    found, spare = [replace(each) for each in known], list(spare)
    name = next((each.name for each in spare), "")
    for left in subtract(_ranges(spare), _ranges(found)):
        if left.size >= SLIVER or not _grown(found, left):
            found.append(RangeFacts(left.base, left.size, MemoryKind.SPARE, 0, name))
    return sorted(found, key=lambda each: each.start)


def _grown(found: Iterable[RangeFacts], sliver: Range) -> bool:
    """Let the RAM behind it, or else before it, have it; False when none is there."""
    ram = [each for each in found if each.kind in _RAM]
    for each in ram:
        if each.start == sliver.end:
            each.start, each.size = sliver.base, each.size + sliver.size
            return True
    for each in ram:
        if each.start + each.size == sliver.base:
            each.size += sliver.size
            return True
    return False


def _ranges(told: Iterable[RangeFacts]) -> list[Range]:
    """Those that are any. An agent may say what it likes."""
    return [
        Range(each.start, each.size)
        for each in told
        if each.size > 0 and each.start + each.size <= 1 << PHYS_BITS
    ]
