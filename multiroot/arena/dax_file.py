# SPDX-License-Identifier: GPL-2.0-or-later
"""The arena as a file of a file system with DAX, in the one root that has that mounted.

Other roots have the same bytes by our own device, so the file has to be one piece of memory. Where it lies
is asked by FIEMAP (Documentation/filesystems/fiemap.rst).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import HUGE_PAGE

FILE = Path("/run/multiroot/arena/memory")
MAKE_ONE = "boot the first root with multirootd.ext4-arena and empty persistent memory: it makes the file"
_MOUNT_IT = "mount it with -o dax=always, before the agent starts"
_FIEMAP = 0xC020660B  # FS_IOC_FIEMAP of linux/fs.h
_REQUEST = struct.Struct("<QQIIII")  # struct fiemap: start, length, flags, extents, their most
_EXTENT = struct.Struct("<QQQ16xI12x")  # struct fiemap_extent: logical, physical, length, flags
_AT_ONCE = 256
_LAST, _MERGED = 0x1, 0x1000  # FIEMAP_EXTENT_*; any other says that the bytes are not simply there


@dataclass(frozen=True)
class Piece:
    """A part of a file, in bytes: where it is in the file and on the disk. `plain`: it was written."""

    logical: int
    physical: int
    size: int
    plain: bool = True


@dataclass(frozen=True)
class Mount:
    """The file system that has the file. `disk` is its block device's name (pmem0)."""

    disk: str
    options: tuple[str, ...]


def under(top: Path) -> Path:
    """The file, where `top` is the folder of everything."""
    return top / str(FILE).lstrip("/")


def mount_of(top: Path) -> Mount | None:
    """What is mounted where the file is; None in a root that has none. `top` is the folder with /proc."""
    table = top / "proc/mounts"
    if not table.exists():
        return None
    for line in table.read_text().splitlines():
        source, point, _kind, options, *_ = line.split(" ")
        if point == str(FILE.parent):
            return Mount(Path(source).name, tuple(options.split(",")))
    return None


def address(mount: Mount, top: Path) -> int:
    """The machine address where the file begins.

    Raises BadRequestError or ConflictError when the file is no range of memory that an arena can be.
    """
    if not {"dax", "dax=always"} & {*mount.options}:
        raise BadRequestError(f"{FILE} can't be the arena: its file system is mounted without DAX", _MOUNT_IT)
    file, data = under(top), top / "sys/class/block" / mount.disk / "device/resource"
    for wanted, what in ((file, f"there is no {FILE}"), (data, f"{FILE} is not on persistent memory alone")):
        if not wanted.exists():
            raise BadRequestError(what, MAKE_ONE)
    # Of a namespace in fsdax mode it is where its data begins.
    begin = int(data.read_text(), 0) + one_piece(pieces(file), file.stat().st_size)
    if begin % HUGE_PAGE:
        raise BadRequestError(f"{FILE} begins at {begin:#x}, at no page of 2 MiB", MAKE_ONE)
    return begin


def one_piece(found: list[Piece], length: int) -> int:
    """Where these begin on their disk, in bytes.

    Raises ConflictError unless they are one, of at least `length` bytes, and written.
    """
    if not found:
        raise ConflictError(f"{FILE} has no blocks", MAKE_ONE)
    first, parts, size = found[0].physical, 1, 0
    for each in found:
        if not each.plain:
            raise ConflictError(f"{FILE} has blocks at {each.logical:#x} that were never written", MAKE_ONE)
        parts += (each.logical, each.physical) != (size, first + size)
        size = each.logical + each.size
    if parts > 1:
        raise ConflictError(f"{FILE} lies in {parts} pieces, the arena has to be one", MAKE_ONE)
    if size < length:
        raise ConflictError(f"{FILE} has no blocks from {size:#x} on", MAKE_ONE)
    return first


def pieces(path: Path) -> list[Piece]:
    """The file's extents, in the order of the file. Raises ConflictError if the file system tells of none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return list(_asked(fd))
    except OSError as error:
        raise ConflictError(f"{path}: nobody can tell where it lies: {error.strerror}", MAKE_ONE) from error
    finally:
        os.close(fd)


def _asked(fd: int) -> Iterator[Piece]:
    start = 0
    while True:
        answer = bytearray(_REQUEST.size + _AT_ONCE * _EXTENT.size)
        _REQUEST.pack_into(answer, 0, start, 2**64 - 1 - start, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FIEMAP, answer)
        count = _REQUEST.unpack_from(answer)[3]
        for number in range(count):
            logical, physical, size, flags = _EXTENT.unpack_from(
                answer, _REQUEST.size + number * _EXTENT.size
            )
            yield Piece(logical, physical, size, not flags & ~(_LAST | _MERGED))
            start = logical + size
            if flags & _LAST:
                return
        if not count:
            return
