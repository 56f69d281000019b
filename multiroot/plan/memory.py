# SPDX-License-Identifier: GPL-2.0-or-later
"""Which memory a new root gets: its carve, its low window, the persistent memory it is shown."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from multiroot import arch
from multiroot.errors import BadRequestError
from multiroot.kexec.boot import CARVE_ALIGNMENT
from multiroot.kexec.target import target
from multiroot.plan import iomem
from multiroot.plan.inventory import Inventory, MemoryBlock, blocks_in, is_ram_only
from multiroot.plan.refusal import Refusal
from multiroot.plan.request import CARVE_ENOUGH, Request
from multiroot.ranges import Range, align_down, align_up
from multiroot.units import GIB, format_size

FIRST_ROOT = 1


class Way(enum.StrEnum):
    """How a carve is taken."""

    RESERVED = "reserved"  # kept off the kernel at boot, by memmap=SIZE$START
    BLOCKS = "blocks"  # memory blocks that are offlined now


@dataclass(frozen=True)
class Carve:
    """The carve and the numbers of the memory blocks to offline for it."""

    range: Range
    way: Way
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Room:
    """Free memory in one piece: where a carve may begin and end, in steps of `unit` bytes."""

    range: Range
    way: Way
    unit: int

    def bases(self, size: int) -> Range | None:
        """The range from the lowest to the highest base (inclusive end - 1) of a carve of `size` bytes."""
        first = align_up(self.range.base, self.unit)
        last = align_down(self.range.end - size, self.unit) if self.range.end >= size else -1
        return Range.between(first, last + 1) if size % self.unit == 0 and first <= last else None

    @property
    def largest(self) -> int:
        return max(0, align_down(self.range.end, self.unit) - align_up(self.range.base, self.unit))


def choose_carve(inventory: Inventory, request: Request) -> Carve:
    """The carve, or Refusal with the nearest one that is free."""
    if request.carve_size is None:
        if request.carve_base is not None:
            raise Refusal(
                "a carve base without a size", conflict=False, mended=replace(request, carve_base=None)
            )
        return _default(inventory, request)
    _check_numbers(request, request.carve_size, request.carve_base)
    if request.carve_base is None:
        return _anywhere(inventory, request, request.carve_size)
    return _exactly(inventory, request, Range(request.carve_base, request.carve_size))


def _rooms(inventory: Inventory) -> Iterator[_Room]:
    """Reserved memory first: taking it changes nothing in this root."""
    for item in inventory.reserved_carves:
        yield _Room(item, Way.RESERVED, CARVE_ALIGNMENT)
    for run in inventory.block_runs:
        whole = Range.between(run[0].range.base, run[-1].range.end)
        yield _Room(whole, Way.BLOCKS, max(run[0].range.size, CARVE_ALIGNMENT))


def _check_numbers(request: Request, size: int, base: int | None) -> None:
    """Refuse what makes no sense on any machine."""
    if size < request.needed:
        raise Refusal(
            f"a carve of {format_size(max(size, 0))} is too small, {format_size(request.needed)} are needed",
            conflict=False,
            mended=replace(request, carve_size=align_up(request.needed, CARVE_ALIGNMENT)),
        )
    aligned_base = None if base is None else align_down(max(base, 0) + CARVE_ALIGNMENT // 2, CARVE_ALIGNMENT)
    aligned_size = align_up(size, CARVE_ALIGNMENT)
    if aligned_base != base or aligned_size != size:
        raise Refusal(
            f"the carve is not aligned to {format_size(CARVE_ALIGNMENT)}",
            conflict=False,
            mended=replace(request, carve_size=aligned_size, carve_base=aligned_base),
        )
    limit = arch.current().memory.address_limit
    if base is not None and base + size > limit:
        raise Refusal(
            f"the carve ends beyond {limit >> 40} TiB",
            conflict=False,
            mended=replace(request, carve_base=None),
        )


def _default(inventory: Inventory, request: Request) -> Carve:
    """All of the largest reserved piece, if it is enough for a root; failing that, that piece or half of the
    largest run of blocks, whichever is larger.
    """
    rooms = [room for room in _rooms(inventory) if room.largest >= request.needed]
    if not rooms:
        largest = max((room.largest for room in _rooms(inventory)), default=0)
        raise Refusal(_no_room(inventory, request.needed, largest), _HOW_TO_FREE, conflict=True)
    reserved = max((room.largest for room in rooms if room.way is Way.RESERVED), default=0)
    blocks = max((_of_run(room, request.needed) for room in rooms if room.way is Way.BLOCKS), default=0)
    return _anywhere(inventory, request, reserved if reserved >= CARVE_ENOUGH else max(reserved, blocks))


def _of_run(run: _Room, needed: int) -> int:
    """Half of it, if that is enough for a root."""
    enough = min(run.largest, max(needed, CARVE_ENOUGH))
    return max(align_down(run.largest // 2, run.unit), align_up(enough, run.unit))


_HOW_TO_FREE = "boot with memmap=SIZE$START, or with movablecore=SIZE for memory blocks that can go offline"


def _anywhere(inventory: Inventory, request: Request, size: int) -> Carve:
    """In the tightest reserved piece, else in blocks; aligned to 1 GiB if it can be."""
    fitting = [(room, bases) for room in _rooms(inventory) if (bases := room.bases(size))]
    if fitting:
        fitting.sort(
            key=lambda found: (found[0].way is not Way.RESERVED, found[0].range.size, found[0].range)
        )
        room, bases = fitting[0]
        aligned = align_up(bases.base, GIB)
        base = aligned if size >= GIB and aligned < bases.end else bases.base
        return _carve(inventory, Range(base, size), room.way)
    sizes = sorted({_rounded(room, size) for room in _rooms(inventory)} - {0})
    usable = [found for found in sizes if found >= request.needed]
    nearest = min(usable, key=lambda found: abs(found - size), default=None)
    mended = None if nearest is None else replace(request, carve_size=nearest)
    raise Refusal(
        _no_room(inventory, size, max(sizes, default=0)), _HOW_TO_FREE, conflict=True, mended=mended
    )


def _rounded(room: _Room, size: int) -> int:
    """The size nearest to `size` that fits into `room`, 0 if none."""
    return min(align_up(size, room.unit), room.largest)


def _no_room(inventory: Inventory, size: int, largest: int) -> str:
    what = f"the largest free piece has {format_size(largest)}" if largest else "no memory is free"
    unit = next((f", in blocks of {format_size(block.range.size)}" for block in inventory.blocks), "")
    return f"no room for a carve of {format_size(size)}: {what}{unit if largest else ''}"


def _exactly(inventory: Inventory, request: Request, wanted: Range) -> Carve:
    for room in _rooms(inventory):
        bases = room.bases(wanted.size)
        if bases and bases.base <= wanted.base < bases.end and wanted.base % room.unit == 0:
            return _carve(inventory, wanted, room.way)
    message = _in_the_way(inventory, wanted)
    raise Refusal(message, conflict=True, mended=_nearest(inventory, request, wanted))


def _nearest(inventory: Inventory, request: Request, wanted: Range) -> Request:
    """The same size as near as possible, or the planner's choice of place and size."""
    bases: list[int] = []
    for room in _rooms(inventory):
        span = room.bases(wanted.size)
        if span:
            last = align_down(span.end - 1, room.unit)
            bases.append(min(max(align_down(wanted.base, room.unit), span.base), last))
    if not bases:
        return replace(request, carve_base=None)
    return replace(request, carve_base=min(bases, key=lambda base: (abs(base - wanted.base), base)))


def _in_the_way(inventory: Inventory, wanted: Range) -> str:
    """Names what holds the first part of `wanted` that is not free."""
    stuck = [block for block in blocks_in(inventory, wanted) if not inventory.can_go(block)]
    users = [
        owner for owner in iomem.owners(inventory.iomem, wanted) if not owner.is_ram and not owner.is_reserved
    ]
    if users:
        return f"carve {wanted} overlaps {users[0].name!r} at {users[0].range}"
    if stuck:
        return (
            f"carve {wanted} overlaps memory block {stuck[0].number} at {stuck[0].range}, which is in zone "
            f"{stuck[0].zone or 'mixed'} and can not go offline"
        )
    covered = blocks_in(inventory, wanted)
    if covered and any(item.overlaps(wanted) for item in inventory.system_ram):
        return f"carve {wanted} is not made of whole memory blocks of {format_size(covered[0].range.size)}"
    if any(item.overlaps(wanted) for item in inventory.system_ram):
        return f"carve {wanted} overlaps memory in use by this kernel"
    if not is_ram_only(inventory, wanted):
        return f"carve {wanted} is not all RAM"
    return f"carve {wanted} is not free as a whole"


def _carve(inventory: Inventory, wanted: Range, way: Way) -> Carve:
    blocks: tuple[MemoryBlock, ...] = blocks_in(inventory, wanted) if way is Way.BLOCKS else ()
    return Carve(wanted, way, tuple(block.number for block in blocks))


def choose_low_window(inventory: Inventory, request: Request) -> Range:
    """The low window, or Refusal."""
    if request.low is None:
        windows = arch.current().memory.low_windows
        free = [window for window in windows if not _low_conflict(inventory, window)]
        if not free:
            raise Refusal(
                f"no low window is free: {_low_conflict(inventory, windows[0])}",
                "choose one with --low-window",
                conflict=True,
            )
        return free[0]
    mended = replace(request, low=None)
    try:
        target().check_low_window(request.low)
    except BadRequestError as error:
        raise Refusal(error.message, error.hint, conflict=False, mended=mended) from error
    reason = _low_conflict(inventory, request.low)
    if reason:
        raise Refusal(reason, conflict=True, mended=mended)
    return request.low


def _low_conflict(inventory: Inventory, window: Range) -> str:
    """What makes `window` unusable, "" if nothing does."""
    ledger = arch.current().memory.ledger
    if window.overlaps(ledger):
        return f"low window {window} overlaps the ledger at {ledger}"
    if not is_ram_only(inventory, window):
        return f"low window {window} is not all RAM"
    for owner in iomem.owners(inventory.iomem, window):
        if owner.is_ram and inventory.root > FIRST_ROOT:
            # All the low memory that such a root sees is its own low window, which it still uses.
            return f"low window {window} overlaps this root's own at {owner.range}"
        if not owner.is_ram and not owner.is_reserved:
            return f"low window {window} overlaps {owner.name!r} at {owner.range}"
    return ""


def choose_pmem(inventory: Inventory, request: Request) -> tuple[Range, ...]:
    """All persistent memory, if the request wants any; Refusal if there is none."""
    if not request.pmem:
        return ()
    if not inventory.pmem:
        raise Refusal(
            "there is no persistent memory to share with a new root",
            "boot with memmap=SIZE!START or add an NVDIMM",
            conflict=True,
            mended=replace(request, pmem=False),
        )
    return inventory.pmem
