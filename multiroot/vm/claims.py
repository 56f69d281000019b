# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VM has which disk, in the arena: two VMs never write to one disk, in whatever roots they are.

A claim is an extent of the smallest size, named after the disk. It belongs to the VM whose name has the
checksum in it, wherever that VM runs; the VM's own owner word says which root may. A claim of a VM that is no
more counts for nothing.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from multiroot.arena.arena import Arena, Entry
from multiroot.arena.atomics import crc32c
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import ALIGN, RESERVED
from multiroot.errors import BadRequestError, ConflictError
from multiroot.vm.disk import Disk

_PREFIX = f"{RESERVED}disk-"


def claim(arena: Arena, vm: str, disks: tuple[Disk, ...]) -> None:
    """Claim all disks for a VM that is in the arena already and does not run yet; raises ConflictError if
    another VM has one, and has claimed none then.
    """
    # What an agent that ended in between has left of this VM's earlier life.
    release(arena, vm)
    try:
        for disk in disks:
            _claim(arena, vm, disk)
    except BaseException:
        release(arena, vm)
        raise


def release(arena: Arena, vm: str) -> None:
    """Give up all that a VM has claimed."""
    for entry in _claims(arena):
        if entry.record.definition == _mark(vm):
            _free(arena, entry)


def _claim(arena: Arena, vm: str, disk: Disk) -> None:
    name = _name(disk)
    for entry in _claims(arena):
        if entry.name == name:
            _free_if_stale(arena, entry, disk)
    try:
        arena.allocate(name, ALIGN, _mark(vm))
    except ConflictError as error:
        raise ConflictError(f"cannot claim the disk {disk.source}: {error.message}", error.hint) from error


def _free_if_stale(arena: Arena, entry: Entry, disk: Disk) -> None:
    for vm in arena.vms():
        if _mark(vm.name) == entry.record.definition:
            raise ConflictError(
                f"the disk {disk.source} is VM {vm.name}'s, in root {vm.owner.root}",
                f"stop that one first: multiroot vm stop {vm.name}",
            )
    _free(arena, entry)


def _free(arena: Arena, entry: Entry) -> None:
    # Whoever else does so at the same time has done it.
    with suppress(BadRequestError, FencedError):
        arena.free(entry.name, entry.owner)


def _claims(arena: Arena) -> list[Entry]:
    return [entry for entry in arena.entries() if entry.name.startswith(_PREFIX) and entry.owner.root]


def _name(disk: Disk) -> str:
    """What the claim of a disk is called, the same in all roots. An extent's name is short."""
    if disk.address is not None:
        return f"{_PREFIX}{disk.address:x}"
    return f"{_PREFIX}{hashlib.blake2b(disk.source.encode(), digest_size=16).hexdigest()}"


def _mark(vm: str) -> int:
    return crc32c(vm.encode())
