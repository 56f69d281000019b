# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/iommu/walk.c, compiled for this program. Another root may write anything into what it walks."""

from __future__ import annotations

import ctypes
import random

import pytest
from kernel_code import U64, compiled

PAGES, BASE, GIB = 64, 1 << 32, 1 << 30
END = BASE + PAGES * 4096
RIGHTS, LARGE = 3, 1 << 7
ELOOP, EEXIST, ENOMEM = -40, -17, -12


class Walk:
    """The functions of walk.c and the tables they walk."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.tables = ((U64 * 512) * PAGES).in_dll(library, "tables")
        self.used = (ctypes.c_ubyte * PAGES).in_dll(library, "used")
        library.mr_walk_find.restype = library.mr_walk_unmap.restype = library.mr_tables_page.restype = U64
        ctypes.memset(self.tables, 0, ctypes.sizeof(self.tables))
        ctypes.memset(self.used, 0, PAGES)
        self.top = int(library.mr_tables_page())

    @staticmethod
    def at(page: int) -> int:
        return BASE + page * 4096

    def map(self, iova: int, phys: int, size: int) -> int:
        stale = U64()
        error: int = self.library.mr_walk_map(
            U64(self.top), U64(iova), U64(phys), U64(size), U64(RIGHTS), ctypes.byref(stale)
        )
        if stale.value:
            self.library.mr_walk_free_stale(stale, U64(size))
        return error

    def find(self, iova: int) -> int:
        rights, left = U64(), U64()
        found = self.library.mr_walk_find(U64(self.top), U64(iova), ctypes.byref(rights), ctypes.byref(left))
        return int(found)

    def unmap(self, iova: int) -> int:
        return int(self.library.mr_walk_unmap(U64(self.top), U64(iova)))

    def leaves(self) -> int:
        """How many there are, or a negative error."""
        error: int = self.library.walk(U64(self.top))
        return error or ctypes.c_ulong.in_dll(self.library, "leaves").value

    def free(self) -> None:
        self.library.mr_walk_free(U64(self.top))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("walk")
    return ctypes.CDLL(str(compiled(folder, "kernel.h", "walk_glue.c", "iommu/walk.c")))


@pytest.fixture
def walk(library: ctypes.CDLL) -> Walk:
    return Walk(library)


def test_what_is_mapped_is_found_until_it_is_unmapped(walk: Walk) -> None:
    assert walk.map(0x1000, 0x5000, 4096) == 0
    assert walk.map(GIB, 7 * GIB, GIB) == 0
    assert walk.map(0x1000, 0x6000, 4096) == EEXIST
    assert (walk.find(0x1000), walk.find(GIB + 0x3000), walk.find(0x2000)) == (0x5000, 7 * GIB + 0x3000, 0)
    assert walk.leaves() == 2
    assert walk.unmap(0x1000) == 4096
    assert walk.find(0x1000) == 0
    # A large one takes the place of tables that are empty by now.
    assert walk.map(0, 3 * GIB, GIB) == 0
    walk.free()
    assert not any(walk.used)


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_tables_that_lead_in_circles_are_walked_to_an_end(walk: Walk, pages: int) -> None:
    """512 to the power of four entries, if nobody counted."""
    for page in range(pages):
        for entry in range(512):
            walk.tables[page][entry] = walk.at((page + entry) % pages) | RIGHTS
    assert walk.leaves() == ELOOP
    assert walk.map(0, 5 * GIB, GIB) == EEXIST
    walk.find(0x1234000)
    walk.free()


@pytest.mark.parametrize("entry", [0x1000 | RIGHTS, END | RIGHTS, (1 << 52) - 4096 | RIGHTS])
def test_a_table_that_is_not_ours_ends_the_way(walk: Walk, entry: int) -> None:
    walk.tables[0][0] = entry
    assert walk.leaves() == 0
    assert walk.find(0x1000) == 0
    assert walk.unmap(0x1000) == 0
    assert walk.map(0x1000, 0x5000, 4096) == ENOMEM
    walk.free()


@pytest.mark.parametrize("seed", range(20))
def test_any_entries_are_taken(walk: Walk, seed: int) -> None:
    rng = random.Random(seed)
    for page in range(PAGES):
        for entry in range(512):
            inside = walk.at(rng.randrange(PAGES)) | rng.choice((0, 1, 2, 3, RIGHTS | LARGE))
            walk.tables[page][entry] = rng.choice((0, 0, inside, rng.getrandbits(64)))
    walk.leaves()
    for _ in range(200):
        iova = rng.getrandbits(48) & ~4095
        walk.map(iova, 0x5000, 4096)
        walk.find(iova)
        walk.unmap(iova)
    walk.free()
