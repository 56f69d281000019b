# SPDX-License-Identifier: GPL-2.0-or-later
"""The device or file that an arena lies in, and mappings of it."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from multiroot.arena import dax_file
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import HUGE_PAGE

OWN_DEVICE = "multiroot-arena"  # what multiroot_arena.ko makes where the kernel has no device-dax
CHARACTER_DEVICES = Path("/sys/dev/char")
_MADV_POPULATE_WRITE = 23  # madvise(2), since Linux 5.14; Python has no name for it
_MAKE_ONE = "make one: ndctl create-namespace -f -e namespace0.0 -m devdax -M mem -a 2M"


class Kind(StrEnum):
    """What shows this root the arena."""

    DEVICE_DAX = "device-dax"
    OWN = "multiroot's own device"
    FILE = "a file of ext4 with DAX"
    PLAIN = "a file"  # in tests

    @property
    def pins(self) -> bool:
        """Whether its pages can stay pinned, which VFIO needs and file systems with DAX don't allow."""
        return self is not Kind.FILE


def kind_of(node: Path) -> Kind:
    """What kind of backing a path is."""
    if node == dax_file.FILE:
        return Kind.FILE
    if not node.is_char_device():
        return Kind.PLAIN
    return Kind.OWN if node.name == OWN_DEVICE else Kind.DEVICE_DAX


@dataclass(frozen=True)
class DaxDevice:
    """A device-DAX instance, or our own device, which has the same attributes; or a file like one.

    Sizes in bytes; `physical` is the machine address where it begins.
    """

    node: Path
    size: int
    physical: int
    align: int
    kind: Kind = Kind.DEVICE_DAX


def find_device(top: Path = Path("/")) -> DaxDevice:
    """The one device-DAX instance of this machine, by sysfs (Documentation/ABI/testing/sysfs-bus-dax).

    Where the kernel has no device-dax it is our own device, and in a root that has the file system with the
    arena mounted it is the file in that. `top` is the folder in which sysfs is /sys.

    Raises BadRequestError when there is no persistent memory in devdax mode or its alignment does not suit,
    ConflictError when there are several, or when a file does not lie as an arena has to.
    """
    found = find_devices(top)
    if not found:
        raise BadRequestError("no persistent memory in devdax mode for the arena", _MAKE_ONE)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConflictError(f"several devdax devices, the arena could be on any: {names}", "leave one")
    path = found[0]
    mount = dax_file.mount_of(top)
    if mount and path == dax_file.under(top):
        begin = dax_file.address(mount, top)
        return DaxDevice(dax_file.FILE, path.stat().st_size, begin, HUGE_PAGE, Kind.FILE)
    device = DaxDevice(
        node=Path("/dev") / path.name,
        size=_number(path / "size"),
        physical=_number(path / "resource"),
        align=_number(path / "align"),
        kind=Kind.OWN if path.name == OWN_DEVICE else Kind.DEVICE_DAX,
    )
    if device.align != HUGE_PAGE:
        raise BadRequestError(f"{device.node} is aligned to {device.align:#x}, not to 2 MiB", _MAKE_ONE)
    return device


def find_devices(top: Path = Path("/")) -> list[Path]:
    """All device-DAX instances of this machine, and our own device, as folders in sysfs; and the file."""
    dax = [path for path in (top / "sys/bus/dax/devices").glob("dax*") if _driver(path) == "device_dax"]
    file = [dax_file.under(top)] if dax_file.mount_of(top) else []
    return [*sorted(dax), *(top / "sys/class/misc").glob(OWN_DEVICE), *file]


def _driver(path: Path) -> str:
    link = path / "driver"
    return link.readlink().name if link.is_symlink() else ""


def _number(path: Path) -> int:
    return int(path.read_text().strip(), 0)


class Backing:
    """An open device or file. `size` is how many bytes of it the arena can use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise BadRequestError(f"cannot open the arena on {path}: {error.strerror}") from error
        self.size = self._usable_size() // HUGE_PAGE * HUGE_PAGE
        if self.size <= HUGE_PAGE:
            self.close()
            raise BadRequestError(f"{path} is too small for an arena", "at least 4 MiB")

    def close(self) -> None:
        os.close(self._fd)

    def map(self, offset: int, size: int) -> mmap.mmap:
        """A shared mapping of that part, both in bytes and multiples of 2 MiB."""
        return mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)

    def populates(self) -> bool:
        """Whether the kernel maps pages of it ahead of their use, and touches nothing that is in them.

        Who is refused here would have to write to each page to get it mapped, while its guest runs elsewhere.
        """
        with self.map(0, HUGE_PAGE) as mapping:
            try:
                mapping.madvise(_MADV_POPULATE_WRITE)
            except OSError:
                return False
        return True

    def zero(self, offset: int, size: int) -> None:
        """Overwrite that part (multiples of 2 MiB) with zeros."""
        zeros = bytes(HUGE_PAGE)
        with self.map(offset, size) as mapping:
            for position in range(0, size, HUGE_PAGE):
                mapping[position : position + HUGE_PAGE] = zeros

    def _usable_size(self) -> int:
        status = os.fstat(self._fd)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        if not stat.S_ISCHR(status.st_mode):
            self.close()
            raise BadRequestError(f"{self.path} is neither a device of persistent memory nor a file")
        size = CHARACTER_DEVICES / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" / "size"
        if not size.exists():
            self.close()
            raise BadRequestError(f"{self.path} is no device of persistent memory")
        return _number(size)


@contextmanager
def opened(path: Path) -> Iterator[Backing]:
    """Opens a backing and closes it after the body."""
    backing = Backing(path)
    try:
        yield backing
    finally:
        backing.close()
