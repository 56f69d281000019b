# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of a kernel's functions, in each way in which kernels have written them; BTF; traces."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.vmcore import btf, kallsyms, traces
from multiroot.vmcore.core_file import Note
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.space import UnmappedError
from multiroot.vmcore.target import parse_registers
from multiroot.vmcore.x86.stack import Place, Stacks

BASE = 0xFFFF_FFFF_9200_0000
NAMES, COUNT, TABLE, INDEX, OFFSETS, RELATIVE = (BASE + at for at in range(0x800000, 0xE00000, 0x100000))
SYMBOLS = [
    ("A__per_cpu_offset_of_it", 0x100),
    ("T_stext", BASE),
    ("Tpanic", BASE + 0x1000),
    ("t" + "long_" * 40 + "name", BASE + 0x1100),  # more than 127 tokens
    ("Tdo_it", BASE + 0x1200),
    ("T_etext", BASE + 0x4000),
    ("D__cpu_online_mask", BASE + 0x5000),
    ("D__per_cpu_offset", BASE + 0x5008),
    ("Dcpu_current_top_of_stack", BASE + 0x5100),
]


class Space:
    """Pieces of virtual memory."""

    linear = 0

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        for start, data in self.pieces.items():
            if start <= address < start + len(data):
                part = data[address - start : address - start + size]
                return (
                    part + bytes(size - len(part))
                    if len(part) >= min(size, 8) or size > 4096
                    else part.ljust(size, b"\0")
                )
        raise UnmappedError(f"nothing is mapped at {address:#x}")


def absolute_percpu(_: int, address: int) -> int:
    return address if address < 1 << 31 else BASE - 1 - address


def since_6_15(_: int, address: int) -> int:
    return (address - BASE) & 0xFFFF_FFFF


def without_base(number: int, address: int) -> int:
    return address - (OFFSETS + 4 * number)


def kernel(way: Callable[[int, int], int]) -> tuple[Space, VmcoreInfo]:
    letters = sorted({letter for name, _ in SYMBOLS for letter in name})
    tokens = b"".join(letter.encode() + b"\0" for letter in letters).ljust(1024, b"\0")
    index = struct.pack("<256H", *(2 * number if number < len(letters) else 0 for number in range(256)))
    names = b""
    for name, _ in SYMBOLS:
        row = bytes(letters.index(letter) for letter in name)
        length = bytes([len(row)]) if len(row) < 128 else bytes([len(row) & 0x7F | 0x80, len(row) >> 7])
        names += length + row
    space = Space()
    addresses = [address for _, address in SYMBOLS]
    if way is not absolute_percpu:
        addresses[0] = BASE + 0x6000
    packed = b"".join(
        struct.pack("<I", way(number, address) & 0xFFFF_FFFF) for number, address in enumerate(addresses)
    )
    symbols = {
        "_stext": BASE,
        "kallsyms_names": NAMES,
        "kallsyms_num_syms": COUNT,
        "kallsyms_token_table": TABLE,
        "kallsyms_token_index": INDEX,
        "kallsyms_offsets": OFFSETS,
    }
    if way is not without_base:
        symbols["kallsyms_relative_base"] = RELATIVE
    space.pieces = {
        NAMES: names,
        COUNT: struct.pack("<I", len(SYMBOLS)),
        TABLE: tokens,
        INDEX: index,
        OFFSETS: packed,
        RELATIVE: struct.pack("<Q", BASE),
    }
    return space, VmcoreInfo("6.12", b"", symbols=symbols)


@pytest.mark.parametrize("way", [absolute_percpu, since_6_15, without_base])
def test_names(way: Callable[[int, int], int]) -> None:
    found = kallsyms.read(*kernel(way))
    assert found.by_name["panic"] == BASE + 0x1000
    assert found.at(BASE + 0x1010) == "panic+0x10/0x100"
    assert found.at(BASE + 0x1100).startswith("long_long_")
    assert found.at(0x10) == ""
    assert found.at((1 << 64) - 1) == ""


@given(
    names=st.binary(max_size=300),
    count=st.integers(0, (1 << 32) - 1),
    index=st.binary(min_size=512, max_size=512),
)
def test_any_tables(names: bytes, count: int, index: bytes) -> None:
    space, info = kernel(since_6_15)
    space.pieces |= {NAMES: names + b"\0", COUNT: struct.pack("<I", count), INDEX: index}
    with pytest.raises(UnmappedError):
        kallsyms.read(space, info)


@pytest.mark.parametrize("padding", [0, 16])
def test_a_trace_goes_on_where_the_interrupt_came_in(padding: int) -> None:
    """With CONFIG_X86_FRED a task's stack ends 16 bytes before its memory does."""
    space, info = kernel(absolute_percpu)
    call = b"\x90" * 2 + b"\xe8" + bytes(4)
    code = bytearray(0x4000)
    code[0x1010 - 7 : 0x1010] = call
    code[0x1220 - 7 : 0x1220] = b"\x90" * 5 + b"\xff\xd0"
    space.pieces[BASE] = bytes(code)
    task = 0xFFFF_C900_0001_0000  # and an interrupt's stack elsewhere
    other = 0xFFFF_C900_0002_0000
    words = [0, BASE + 0x1010, 0x1234, BASE + 0x1220 - 1, BASE + 0x1250, 0x10, 0x2, task + 0x3F00, 0x18]
    space.pieces[other] = struct.pack("<9Q", *words).ljust(0x1000, b"\0")
    space.pieces[task] = bytes(0x3F00) + struct.pack("<2Q", 7, BASE + 0x1220) + bytes(0xF0)
    space.pieces[BASE + 0x5000] = struct.pack("<2Q", 1, (0xFFFF_8880_0000_0000 - BASE - 0x5100) % 2**64)
    space.pieces[0xFFFF_8880_0000_0000] = struct.pack("<Q", task + 0x4000 - padding)
    found = traces.of_all(space, info, {0: other})
    assert found[0].lines() == [
        "CPU 0: a task that is not known",
        "  ? panic+0x10/0x100",
        "  do_it+0x50/0x2e00",
        "  ? do_it+0x20/0x2e00",
    ]
    whole = traces.of_all(space, info, {})
    assert whole[0].lines() == ["CPU 0: a task that is not known, all of its stack", "  ? do_it+0x20/0x2e00"]


def test_registers_are_those_of_a_panic_or_of_what_is_sure() -> None:
    sure, doubtful = Place(BASE + 0x1250, 0xFFFF_C900_0000_3F00, True), Place(BASE + 0x1010, 0x10, False)
    panicked = traces.CpuTrace(
        0, True, 7, "sh", ((doubtful, "panic+0x10/0x100"), (sure, "do_it+0x50/0x2e00"))
    )
    stopped = traces.CpuTrace(1, True, 0, "idle", ((doubtful, "x+0x1/0x2"), (sure, "do_it+0x50/0x2e00")))
    running = traces.CpuTrace(2, False, 0, "idle", ((sure, "do_it+0x50/0x2e00"),))
    first, second = map(parse_registers, traces.registers([panicked, stopped, running]))
    # Before the place that a panic's call would return to: it does not.
    assert first == {"ip": BASE + 0x100F, "sp": 0x10, "cs": 0x10, "flags": 2, "ss": 0x18}
    assert second == first | {"ip": sure.address, "sp": sure.stack}
    assert parse_registers(Note(b"CORE\0", 3, bytes(336))) is None
    assert parse_registers(Note(b"CORE\0", 1, bytes(10))) is None


@given(st.binary(max_size=4096).map(lambda data: data[: len(data) // 8 * 8]), st.integers(0, (1 << 64) - 1))
def test_any_stack(data: bytes, onward: int) -> None:
    space, info = kernel(absolute_percpu)
    stack = 0xFFFF_C900_0002_0000
    space.pieces[stack] = data + struct.pack("<5Q", BASE + 0x1010, 0x10, 2, onward, 0x18)
    symbols = kallsyms.read(space, info)
    for place in Stacks(space, info, symbols).trace(stack):
        assert symbols.at(place.address) or place.address


def make_btf() -> bytes:
    strings = b"\0int\0task_struct\0pid\0comm\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 0x01000020)  # int
    types += struct.pack("<III", 0, 3 << 24, 0) + struct.pack("<III", 1, 1, 16)  # array
    types += struct.pack("<III", 5, 4 << 24 | 2, 40)
    types += struct.pack("<III", 17, 1, 8 * 8) + struct.pack("<III", 21, 2, 8 * 16)
    return (
        struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    )


def test_btf() -> None:
    data = make_btf()
    assert btf.size_of(data) == len(data)
    assert btf.offsets(data, "task_struct") == {"pid": 8, "comm": 16}
    assert btf.offsets(data, "nothing") == {}
    assert btf.offsets(data[:-1], "task_struct") == {}


@given(st.integers(0, 200), st.binary(min_size=1, max_size=24))
def test_any_btf(at: int, spoiled: bytes) -> None:
    data = bytearray(make_btf())
    data[at : at + len(spoiled)] = spoiled
    for offset in btf.offsets(bytes(data), "task_struct").values():
        assert offset >= 0
