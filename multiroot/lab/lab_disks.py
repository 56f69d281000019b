# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that all roots of a lab machine see: image files of the workstation, shown to it as NVDIMMs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.errors import BadRequestError
from multiroot.lab import disk_image, disk_import, image_lock, paths
from multiroot.lab.cache import Cache
from multiroot.lab.layout import Layout
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.ranges import align_up
from multiroot.units import GIB, MIB, format_size
from multiroot.vm.disk import name_of

UNIT = 2 * MIB  # kernels take persistent memory in such pieces (Documentation/driver-api/nvdimm: alignment)
_COPY_TIMEOUT_S = 3600.0
MOST = 512 * GIB  # of all disks: the machine's CPUs have 40 bits for physical addresses, for RAM, too


@dataclass(frozen=True)
class LabDisk:
    """A disk. The machine writes to `file`, of `size` bytes, which is `origin` itself or a copy of its own;
    `copy` is the command that makes the copy.
    """

    origin: Path
    file: Path
    size: int
    copy: tuple[str, ...] = ()


def sources(layout: Layout) -> list[str]:
    """The machine's disks, in their order, as VMs know them in every root."""
    return [name_of(place.start) for place in layout.disks]


def choose(words: Sequence[str], lab: str, cache: Cache) -> tuple[LabDisk, ...]:
    """What `--disk` says: names of images, or files. An image, or a file in another format than raw, stays
    as it is: the machine gets a copy. A raw file is the disk itself.

    Raises BadRequestError for what is no image.
    """
    folder = paths.state_dir() / "disks"
    chosen = [_choose(word, folder / f"{lab}-{number}.raw", cache) for number, word in enumerate(words, 1)]
    files = [disk.file.resolve() for disk in chosen]
    for disk in chosen:
        if files.count(disk.file.resolve()) > 1:
            raise BadRequestError(f"{disk.origin} is given twice", "a file is one disk")
    if (size := sum(disk.size for disk in chosen)) > MOST:
        largest = max(chosen, key=lambda disk: disk.size)
        raise BadRequestError(
            f"{largest.origin} is too large: the disks have {format_size(size)} together",
            f"persistent memory of a lab machine has room for {format_size(MOST)}",
        )
    return tuple(chosen)


def _choose(word: str, copy: Path, cache: Cache) -> LabDisk:
    if "/" not in word and not Path(word).exists():
        origin = _image(word, cache)
        command = disk_image.sparse_copy(origin, copy)
        return LabDisk(origin, copy, align_up(origin.stat().st_size, UNIT), _words(command))
    origin = Path(word)
    found = disk_import.inspect(origin, cache)
    if found.format != "raw":
        command = disk_import.conversion(origin, found, copy, cache)
        return LabDisk(origin, copy, align_up(found.size, UNIT), _words(command))
    size = origin.stat().st_size
    if size % UNIT:
        larger = align_up(size, UNIT)
        raise BadRequestError(
            f"{origin} has {size} bytes, which is no multiple of {format_size(UNIT)}",
            f"make it larger: truncate --size={larger} {proc.quote([origin])}",
        )
    return LabDisk(origin, origin.absolute(), size)


def _image(name: str, cache: Cache) -> Path:
    found = disk_import.find(name, cache)
    if found is None:
        raise BadRequestError(f"the image {name} is not built", f"build it: multiroot vm image build {name}")
    return found


def _words(command: Sequence[proc.Arg]) -> tuple[str, ...]:
    return tuple(map(str, command))


@contextmanager
def locked(disks: Sequence[LabDisk]) -> Iterator[tuple[int, ...]]:
    """In the body, no other machine gets the files that are disks themselves; nor does it afterwards, as long
    as a process has these descriptors. Raises ConflictError if another machine has one, BadRequestError.
    """
    with ExitStack() as stack:
        yield tuple(stack.enter_context(image_lock.written(disk.file)) for disk in disks if not disk.copy)


def provide(disks: Sequence[LabDisk], phases: Phases) -> None:
    """Make the copies anew. Raises CommandError, and ConflictError for an image that a machine writes to."""
    for disk in disks:
        if not disk.copy:
            continue
        paths.make_dir(disk.file.parent)
        disk.file.unlink(missing_ok=True)
        with image_lock.read(disk.origin), phases.phase(PhaseName.COPY_IMAGE):
            proc.run(list(disk.copy), timeout=_COPY_TIMEOUT_S)
        with disk.file.open("r+b") as file:
            file.truncate(disk.size)
        paths.give_to_user(disk.file)
