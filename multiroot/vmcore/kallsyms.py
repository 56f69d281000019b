# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's own table of its functions and variables (kernel/kallsyms.c), read from its memory.

Since 6.0 VMCOREINFO says where its parts are. Names are compressed: each is a row of numbers of tokens. How
addresses are written has changed twice, and nothing says which way it is: the right one puts _stext where
VMCOREINFO has it.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from multiroot.units import KIB, MIB, PAGE
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.space import Space, UnmappedError, half, word

_SYMBOLS_MOST = 1 << 20
_NAMES_MOST = 32 * MIB
_TOKENS = 256
_CHUNK = 256 * KIB
_ANCHOR = "_stext"
_WORDS = (1 << 64) - 1


@dataclass(frozen=True)
class Symbols:
    """Addresses in order, with the names that they have; `by_name` has the first of each name."""

    addresses: list[int] = field(repr=False)
    names: list[str] = field(repr=False)
    by_name: dict[str, int] = field(repr=False)

    def at(self, address: int) -> str:
        """The place as kernels print it, "panic+0x1b/0x340"; "" where there is nothing known."""
        index = bisect.bisect_right(self.addresses, address) - 1
        if index < 0:
            return ""
        start = self.addresses[index]
        behind = bisect.bisect_right(self.addresses, start)
        if behind == len(self.addresses):
            return ""
        name = self.names[bisect.bisect_left(self.addresses, start)]
        return f"{name}+{address - start:#x}/{self.addresses[behind] - start:#x}"


def read(space: Space, info: VmcoreInfo) -> Symbols:
    """All symbols. Raises UnmappedError where the kernel does not say where they are, or says nonsense."""
    try:
        where = {
            name: info.symbols[f"kallsyms_{name}"]
            for name in ("names", "num_syms", "token_table", "token_index")
        }
    except KeyError as missing:
        raise UnmappedError(f"the kernel does not say {missing.args[0]}") from missing
    count = half(space, where["num_syms"])
    if not 0 < count <= _SYMBOLS_MOST:
        raise UnmappedError(f"there can't be {count} symbols")
    tokens = _tokens(space, where["token_table"], where["token_index"])
    token = tokens.__getitem__
    names = ["".join(map(token, row)) for row in _rows(space, where["names"], count)]
    # The first letter is the kind, as in nm(1): T for this one.
    anchor = names.index(f"T{_ANCHOR}") if f"T{_ANCHOR}" in names else -1
    for addresses in _addresses(space, info, count):
        if anchor >= 0 and addresses[anchor] == info.symbols.get(_ANCHOR):
            return _sorted(addresses, [name[1:] for name in names])
    raise UnmappedError("the kernel writes the addresses of its symbols in a way that is not known")


def _sorted(addresses: list[int], names: list[str]) -> Symbols:
    by_name = dict(zip(reversed(names), reversed(addresses), strict=True))
    order = sorted(range(len(names)), key=addresses.__getitem__)
    return Symbols([addresses[each] for each in order], [names[each] for each in order], by_name)


def _tokens(space: Space, table: int, index: int) -> list[str]:
    starts = struct.unpack(f"<{_TOKENS}H", space.read(index, 2 * _TOKENS))
    # The last token ends somewhere behind its start: no token is longer than a name.
    raw = space.read(table, max(starts) + 128)
    return [
        "".join(c if c.isprintable() else "?" for c in raw[at : raw.find(b"\0", at)].decode("latin-1"))
        for at in starts
    ]


def _rows(space: Space, address: int, count: int) -> Iterator[bytes]:
    """The numbers of each name's tokens: their count (7 bits, and 7 more if the eighth is set), then they."""
    data, at, read, safe = b"", 0, 0, -1
    for _ in range(count):
        if at > safe and read < _NAMES_MOST:
            more = _as_much(space, address + read, _CHUNK)
            data, at, read = data[at:] + more, 0, read + _CHUNK
            # Up to here a name is whole: it takes 2 bytes for its length and up to 16383 more.
            safe = len(data) - 2 - (1 << 14)
        length = data[at] if at < len(data) else 0
        at += 1
        if length & 0x80 and at < len(data):
            length = length & 0x7F | data[at] << 7
            at += 1
        row = data[at : at + length]
        if not row or len(row) != length:
            raise UnmappedError("the names of symbols make no sense")
        yield row
        at += length


def _as_much(space: Space, address: int, size: int) -> bytes:
    """What is mapped there, up to the first page that is not."""
    try:
        return space.read(address, size)
    except UnmappedError:
        if size <= PAGE:
            return b""
    first = _as_much(space, address, size // 2)
    return first if len(first) < size // 2 else first + _as_much(space, address + size // 2, size - size // 2)


def _addresses(space: Space, info: VmcoreInfo, count: int) -> Iterator[list[int]]:
    """The ways in which they may be meant, until 6.14, since then, and since there is no base any more."""
    where = info.symbols
    if "kallsyms_addresses" in where:
        yield list(struct.unpack(f"<{count}Q", space.read(where["kallsyms_addresses"], 8 * count)))
    if "kallsyms_offsets" not in where:
        return
    at = where["kallsyms_offsets"]
    offsets = struct.unpack(f"<{count}i", space.read(at, 4 * count))
    ways: list[Callable[[int, int], int]] = []
    if "kallsyms_relative_base" in where:
        base = word(space, where["kallsyms_relative_base"])
        ways.append(lambda _, offset: offset if offset >= 0 else base - 1 - offset)
        ways.append(lambda _, offset: base + (offset & 0xFFFF_FFFF))
    ways.append(lambda number, offset: at + 4 * number + offset)
    for way in ways:
        yield [way(number, offset) & _WORDS for number, offset in enumerate(offsets)]
