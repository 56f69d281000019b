# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses where a new extent lies. Pure: nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multiroot.arena.layout import METADATA_SIZE, check_size
from multiroot.errors import ConflictError
from multiroot.units import format_size, typed_size

_IN_REACH = 4  # times what a lab's arena has: who needs more is not told to end the lab for it


@dataclass(frozen=True, order=True)
class Extent:
    """A contiguous part of the arena. Both numbers are bytes; `offset` counts from the start of the arena."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def free_extents(used: Iterable[Extent], total: int) -> list[Extent]:
    """The gaps between `used` extents in an arena of `total` bytes, in order, neighbours joined.

    Raises ConflictError if extents in use overlap or lie outside of the arena.
    """
    gaps: list[Extent] = []
    position = METADATA_SIZE
    for extent in sorted(used):
        if extent.offset < position or extent.end > total:
            raise ConflictError(
                f"extent {extent.offset:#x}-{extent.end:#x} overlaps another or leaves the arena",
                "the extent table is damaged",
            )
        if extent.offset > position:
            gaps.append(Extent(position, extent.offset - position))
        position = extent.end
    if total > position:
        gaps.append(Extent(position, total - position))
    return gaps


def plan(used: Iterable[Extent], size: int, total: int) -> Extent:
    """The smallest gap that holds `size` bytes, lowest first among equals (best fit).

    One extent, not several: QEMU maps a VM's RAM as one memory backend, which is one range of the device.
    Raises BadRequestError for a size that is no multiple of 2 MiB, ConflictError when no gap is large enough.
    """
    check_size(size)
    gaps = free_extents(used, total)
    fitting = [gap for gap in gaps if gap.size >= size]
    if not fitting:
        largest, free = max((gap.size for gap in gaps), default=0), sum(gap.size for gap in gaps)
        raise ConflictError(
            f"the arena has no free extent of {format_size(size)}",
            f"largest free: {format_size(largest)} of {format_size(free)} in all; a VM that ends gives its "
            f"memory back{larger_lab(total - METADATA_SIZE - free + size, total)}",
        )
    best = min(fitting, key=lambda gap: (gap.size, gap.offset))
    return Extent(best.offset, size)


def larger_lab(size: int, total: int) -> str:
    """How a lab gets an arena for VMs of `size` bytes together, to follow other words of a hint; "" for what
    the workstation most likely has not, as it is many times the size of the arena, `total` bytes.
    """
    if size > _IN_REACH * total:
        return ""
    more = f"multiroot lab down && multiroot lab up --vms 1 --vm-memory {typed_size(size)}"
    return f"; a lab has to begin anew for more, with its other options, and its VMs end with it: `{more}`"
