# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO: the text in which a kernel tells debuggers where it is and how it is built.

Documentation/admin-guide/kdump/vmcoreinfo.rst. A kernel makes it while it boots, long before any crash. It
lies in a page of its own, and once more behind the header of an ELF note.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from multiroot.ranges import Range
from multiroot.units import MIB, PAGE

NAME = b"VMCOREINFO\0"
# Where a page begins that holds it, as a word of memory.
FIRST_WORD: int = struct.unpack("<Q", b"OSRELEAS")[0]
MOST = PAGE  # bytes: it has a page
_SLICE = 32 * MIB  # searched at once
_CANDIDATES_MOST = 256  # a root may have written that word anywhere, any number of times
_LINE = re.compile(
    r"(?:(?P<kind>SYMBOL|SIZE|OFFSET|LENGTH|NUMBER)\((?P<of>[\w.]+)\)|(?P<key>[\w-]+))=(?P<value>.*)"
)
_RELEASE = re.compile(r"[\w.+~-]{1,64}")
_WORD_END = 1 << 64


class Memory(Protocol):
    """A root's memory, as the module shows it."""

    def read_memory(self, phys: int, size: int) -> bytes | bytearray:
        """A copy of it."""

    def find_word(self, phys: int, size: int, word: int) -> int:
        """Where in it the 64-bit word is first, 0: nowhere."""


@dataclass(frozen=True)
class VmcoreInfo:
    """What it says. Symbols are virtual addresses, with what KASLR has added."""

    release: str
    text: bytes = field(repr=False)
    build_id: str = ""
    page_size: int = PAGE
    kernel_offset: int = 0  # of KASLR
    symbols: dict[str, int] = field(default_factory=dict, repr=False)
    sizes: dict[str, int] = field(default_factory=dict, repr=False)
    offsets: dict[str, int] = field(default_factory=dict, repr=False)
    lengths: dict[str, int] = field(default_factory=dict, repr=False)
    numbers: dict[str, int] = field(default_factory=dict, repr=False)


def parse(raw: bytes) -> VmcoreInfo | None:
    """What a VMCOREINFO text says; None for what is none. Lines that make no sense are passed over."""
    text = bytes(raw[:MOST]).partition(b"\0")[0]
    by_kind: dict[str, dict[str, int]] = {
        kind: {} for kind in ("SYMBOL", "SIZE", "OFFSET", "LENGTH", "NUMBER")
    }
    keys: dict[str, str] = {}
    for line in text.decode("ascii", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        if match["key"]:
            keys.setdefault(match["key"], match["value"])
            continue
        number = _number(match["value"], 16 if match["kind"] == "SYMBOL" else 10)
        if number is not None:
            by_kind[match["kind"]].setdefault(match["of"], number)
    release = keys.get("OSRELEASE", "")
    if not _RELEASE.fullmatch(release):
        return None
    build_id = keys.get("BUILD-ID", "")
    return VmcoreInfo(
        release=release,
        text=text,
        build_id=build_id if re.fullmatch("[0-9a-f]{8,64}", build_id) else "",
        page_size=_number(keys.get("PAGESIZE", ""), 10) or PAGE,
        kernel_offset=_number(keys.get("KERNELOFFSET", ""), 16) or 0,
        symbols=by_kind["SYMBOL"],
        sizes=by_kind["SIZE"],
        offsets=by_kind["OFFSET"],
        lengths=by_kind["LENGTH"],
        numbers=by_kind["NUMBER"],
    )


def _number(text: str, base: int) -> int | None:
    """A number of at most 64 bits; numbers can be negative, and those of the kernel are."""
    pattern = r"-?[0-9]{1,20}" if base == 10 else r"[0-9a-f]{1,16}"
    if not re.fullmatch(pattern, text, re.ASCII):
        return None
    number = int(text, base)
    return number if -_WORD_END < number < _WORD_END else None


def words(memory: Memory, where: Range, word: int) -> Iterator[int]:
    """Where a 64-bit word is in a range, in order."""
    for start in range(where.base, where.end, _SLICE):
        at, end = start, min(start + _SLICE, where.end)
        while at < end and (at := memory.find_word(at, end - at, word)):
            yield at
            at += 8


def candidates(memory: Memory, ranges: list[Range]) -> Iterator[tuple[int, VmcoreInfo]]:
    """Whatever looks like one in a root's memory, with its address; some may be those of kernels before."""
    left = _CANDIDATES_MOST
    for where in ranges:
        for at in words(memory, where, FIRST_WORD):
            found = parse(bytes(memory.read_memory(at, min(MOST, where.end - at))))
            if found:
                yield at, found
            left -= 1
            if not left:
                return
