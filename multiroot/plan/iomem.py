# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of /proc/iomem: text in, ranges out, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multiroot.errors import BadRequestError
from multiroot.ranges import PHYS_BITS, Range

SYSTEM_RAM = "System RAM"
RESERVED = "Reserved"
PERSISTENT = "Persistent Memory"  # also "Persistent Memory (legacy)", from memmap=SIZE!START

_DEEPEST = 64  # the kernel's own limit is lower
_LINE = re.compile(r"((?:  )*)([0-9a-f]+)-([0-9a-f]+) : (.*)")


@dataclass(frozen=True)
class Resource:
    """One line of /proc/iomem and what is indented below it."""

    range: Range
    name: str
    children: tuple[Resource, ...] = ()

    def walk(self) -> Iterator[Resource]:
        """This resource and all below it, outermost first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def is_ram(self) -> bool:
        return self.name.startswith(SYSTEM_RAM)

    @property
    def is_reserved(self) -> bool:
        return self.name.lower() == RESERVED.lower()

    @property
    def is_persistent(self) -> bool:
        return self.name.startswith(PERSISTENT)


def parse(text: str) -> tuple[Resource, ...]:
    """The top-level resources.

    BadRequestError for malformed text, or when addresses are hidden from a reader who is not root.
    """
    lines = [_parse_line(line) for line in text.splitlines() if line.strip()]
    if lines and all(start == end == 0 for _, start, end, _ in lines):
        raise BadRequestError("/proc/iomem hides its addresses", "run as root")
    resources, rest = _siblings(lines, 0)
    if rest:
        raise BadRequestError(f"/proc/iomem: {rest[0][3]!r} is indented too deep")
    return resources


_Parsed = tuple[int, int, int, str]


def _parse_line(line: str) -> _Parsed:
    match = _LINE.fullmatch(line)
    if not match or not int(match[2], 16) <= int(match[3], 16) < 1 << PHYS_BITS:
        raise BadRequestError(f"/proc/iomem: malformed line {line!r}")
    if len(match[1]) > 2 * _DEEPEST:
        raise BadRequestError(f"/proc/iomem: {match[4]!r} is indented too deep")
    return len(match[1]) // 2, int(match[2], 16), int(match[3], 16), match[4]


def _siblings(lines: Sequence[_Parsed], depth: int) -> tuple[tuple[Resource, ...], Sequence[_Parsed]]:
    """Resources at `depth` from the start of `lines`, and the lines behind them."""
    found: list[Resource] = []
    while lines and lines[0][0] == depth:
        _, start, end, name = lines[0]
        children, lines = _siblings(lines[1:], depth + 1)
        found.append(Resource(Range.between(start, end + 1), name, children))
    return tuple(found), lines


def render(resources: Sequence[Resource], depth: int = 0) -> str:
    """The text that `parse` reads."""
    lines = []
    for item in resources:
        lines.append(f"{'  ' * depth}{item.range.base:08x}-{item.range.end - 1:08x} : {item.name}\n")
        lines.append(render(item.children, depth + 1))
    return "".join(lines)


def owners(resources: Sequence[Resource], wanted: Range) -> tuple[Resource, ...]:
    """The innermost resources that overlap `wanted`, in order."""
    found: list[Resource] = []
    for item in resources:
        if item.range.overlaps(wanted):
            found += owners(item.children, wanted) or (item,)
    return tuple(found)
