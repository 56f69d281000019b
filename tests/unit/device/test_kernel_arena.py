# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/arena/find.c, compiled for this program: whatever it is given, it finds nothing outside of it."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_code import U64, compiled, loaded

from multiroot.units import HUGE_PAGE, MIB

START, SIZE = 0x1_0000_0000, 64 * MIB
ENXIO, EINVAL = -6, -22
KINDS = (1, 2)  # persistent memory, as the firmware tells of it and as memmap= does
SIGNATURE = b"NVDIMM_DAX_INFO\0"
FILE_SIGNATURE = b"NVDIMM_PFN_INFO\0"  # of a namespace in fsdax mode


class Range(ctypes.Structure):
    _fields_ = (("start", U64), ("end", U64))


class Finder:
    """find.c, and the memory that it looks into."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.mr_arena_range.restype = ctypes.POINTER(Range)
        self.memory(START, SIZE)

    def memory(self, start: int, size: int, kind: int = KINDS[0]) -> None:
        for name, value in (("start", start), ("size", size), ("kind", kind)):
            U64.in_dll(self.library, f"memory_{name}").value = value

    def info(self, signature: bytes = SIGNATURE, data: int = HUGE_PAGE, pad: int = 0) -> None:
        block = (ctypes.c_ubyte * 4096).in_dll(self.library, "info")
        block[:] = signature.ljust(56, b"\0") + struct.pack("<Q12xI", data, pad) + bytes(4096 - 80)

    def find(
        self, start: int = START, size: int = SIZE, file: tuple[int, int] = (0, 0)
    ) -> tuple[int, int] | int:
        """Where the data begins and ends, or that file (start, size) in it; or a negative error."""
        error = int(self.library.mr_arena_find(*map(U64, (start, size, *file))))
        found = self.library.mr_arena_range().contents
        return error or (found.start, found.end + 1)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("arena"), "arena.h", "arena_glue.c", "arena/find.c")


@pytest.fixture
def finder(library: Path, tmp_path: Path) -> Finder:
    return Finder(loaded(library, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_of_a_namespace(finder: Finder, kind: int) -> None:
    finder.memory(START, SIZE, kind)
    finder.info()
    assert finder.find() == (START + HUGE_PAGE, START + SIZE)
    finder.info(data=HUGE_PAGE, pad=2 * HUGE_PAGE)
    assert finder.find() == (START + 3 * HUGE_PAGE, START + SIZE)


def test_it_ends_at_a_page_of_2_mib(finder: Finder) -> None:
    finder.info()
    assert finder.find(size=SIZE - MIB) == (START + HUGE_PAGE, START + SIZE - HUGE_PAGE)


@pytest.mark.parametrize(
    ("start", "size"),
    [(START, 2 * SIZE), (START - HUGE_PAGE, SIZE), (START, 0), (0, SIZE), (2**64 - MIB, SIZE)],
)
def test_what_is_no_persistent_memory(finder: Finder, start: int, size: int) -> None:
    finder.info()
    assert finder.find(start, size) == EINVAL


def test_memory_of_another_kind(finder: Finder) -> None:
    finder.memory(START, SIZE, kind=3)
    finder.info()
    assert finder.find() == EINVAL


@pytest.mark.parametrize("signature", [b"", b"NVDIMM_PFN_INFO", b"NVDIMM_DAX_INFOS"])
def test_a_namespace_in_another_mode(finder: Finder, signature: bytes) -> None:
    finder.info(signature)
    assert finder.find() == ENXIO


@pytest.mark.parametrize("data", [0, 4096, HUGE_PAGE + 4096, SIZE, 2**64 - HUGE_PAGE])
def test_data_that_does_not_begin_in_it(finder: Finder, data: int) -> None:
    finder.info(data=data)
    assert finder.find() == EINVAL


def test_a_file_of_a_file_system_with_dax(finder: Finder) -> None:
    finder.info(FILE_SIGNATURE)
    data = START + HUGE_PAGE
    assert finder.find(file=(HUGE_PAGE, MIB * 9)) == (data + HUGE_PAGE, data + HUGE_PAGE + 8 * MIB)
    assert finder.find(file=(0, SIZE - HUGE_PAGE)) == (data, START + SIZE)


@pytest.mark.parametrize(
    "file",
    [
        (4096, HUGE_PAGE),
        (0, MIB),
        (HUGE_PAGE, SIZE - HUGE_PAGE),
        (SIZE, HUGE_PAGE),
        (2**64 - HUGE_PAGE, 2 * HUGE_PAGE),
        (0, 2**64 - 1),
    ],
)
def test_a_file_that_is_no_whole_pages_in_the_namespace(finder: Finder, file: tuple[int, int]) -> None:
    finder.info(FILE_SIGNATURE)
    assert finder.find(file=file) == EINVAL


def test_a_file_is_in_no_namespace_in_devdax_mode(finder: Finder) -> None:
    finder.info()
    assert finder.find(file=(0, HUGE_PAGE)) == ENXIO


ANY = st.integers(0, 2**64 - 1)
IN_IT = st.integers(0, SIZE)


@given(ANY, st.integers(0, 2**32 - 1), IN_IT, st.tuples(ANY | IN_IT, ANY | IN_IT))
def test_nothing_outside_is_ever_found(
    library: Path, data: int, pad: int, size: int, file: tuple[int, int]
) -> None:
    finder = Finder(ctypes.CDLL(str(library)))
    finder.info(FILE_SIGNATURE if file[1] else SIGNATURE, data, pad)
    found = finder.find(size=size, file=file)
    if not isinstance(found, int):
        assert START < found[0] < found[1] <= START + size
        assert not found[0] % HUGE_PAGE
        assert not found[1] % HUGE_PAGE
