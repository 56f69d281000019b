# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel that runs in a root's memory, or has died there: found by its VMCOREINFO."""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.ranges import Range
from multiroot.vmcore import info as vmcoreinfo
from multiroot.vmcore.info import Memory, VmcoreInfo
from multiroot.vmcore.space import UnmappedError
from multiroot.vmcore.target import mark_word, parse_mark, tables

_MARK_MOST = 64  # bytes
_MARKS_MOST = 1024  # a root may have written that word anywhere, any number of times
_UTS_MOST = 512  # bytes of struct uts_namespace up to the end of the names


@dataclass(frozen=True)
class Found:
    """A kernel's VMCOREINFO, and the physical address of its text."""

    address: int
    info: VmcoreInfo


class Ranges:
    """Physical memory of which only `ranges` can be read; `read` raises UnmappedError for all else."""

    def __init__(self, memory: Memory, ranges: list[Range]) -> None:
        self._memory = memory
        self._ranges = ranges

    def read(self, phys: int, size: int) -> bytes:
        if not any(each.base <= phys and phys + size <= each.end for each in self._ranges):
            raise UnmappedError(f"the root has no memory at {phys:#x}")
        return bytes(self._memory.read_memory(phys, size))


def find(memory: Memory, ranges: list[Range]) -> Found | None:
    """The kernel in `ranges`; None as long as it has not come so far.

    What kernels before it have left there is told apart: by its own page tables and symbols, a kernel that
    is there finds its own name.
    """
    readable = Ranges(memory, ranges)
    for address, info in vmcoreinfo.candidates(memory, ranges):
        if speaks_of_itself(readable, info):
            return Found(address, info)
    return None


def parked(memory: Memory, ranges: list[Range], root: int) -> dict[int, int]:
    """The CPUs that root number `root` has parked, by their numbers in its kernel: where their stacks end."""
    found = {}
    left = _MARKS_MOST
    for where in ranges:
        for at in vmcoreinfo.words(memory, where, mark_word()):
            mark = parse_mark(bytes(memory.read_memory(at, min(_MARK_MOST, where.end - at))), root)
            if mark:
                found[mark[0]] = mark[1]
            left -= 1
            if not left:
                return found
    return found


def speaks_of_itself(memory: Ranges, info: VmcoreInfo) -> bool:
    """Whether the kernel's release is where `info` says that the kernel has it."""
    names = info.symbols.get("init_uts_ns")
    if names is None:
        return False
    try:
        raw = tables(memory.read, info).read(names, _UTS_MOST)
    except UnmappedError:
        return False
    return info.release.encode() + b"\0" in raw
