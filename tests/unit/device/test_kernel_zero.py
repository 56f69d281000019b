# SPDX-License-Identifier: GPL-2.0-or-later
"""Zeroing a page, csrc/kmod/core/x86/zero.c compiled for this program: no byte of another root is left."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_code import compiled, loaded

PAGE = mmap.PAGESIZE


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("zero"), "zero.h", "zero_glue.c", "core/x86/zero.c")


@pytest.fixture(params=[False, True], ids=["hardware", "hypervisor"])
def cpu(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> ctypes.CDLL:
    library = loaded(built, tmp_path)
    library.mr_zero_page.argtypes = [ctypes.c_void_p]
    ctypes.c_bool.in_dll(library, "emulated").value = request.param
    return library


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Three pages that another root has left: who zeroes the one in the middle leaves the others alone."""
    with mmap.mmap(-1, 3 * PAGE) as memory:
        memory[:] = b"\xa5" * len(memory)
        yield memory


def zero(cpu: ctypes.CDLL, memory: mmap.mmap) -> None:
    """The page in the middle."""
    first = ctypes.c_char.from_buffer(memory)
    cpu.mr_zero_page(ctypes.addressof(first) + PAGE)
    del first  # so that the memory can be closed


def check(memory: mmap.mmap) -> None:
    assert memory[PAGE : 2 * PAGE] == bytes(PAGE)
    for other in (0, 2):
        assert memory[other * PAGE : (other + 1) * PAGE] == b"\xa5" * PAGE


def test_a_page_full_of_something_is_zeroed(cpu: ctypes.CDLL, memory: mmap.mmap) -> None:
    zero(cpu, memory)
    check(memory)


@pytest.mark.parametrize("at", [0, 7, 8, PAGE // 2, PAGE - 1])
def test_one_byte_is_enough(cpu: ctypes.CDLL, memory: mmap.mmap, at: int) -> None:
    memory[PAGE : 2 * PAGE] = bytes(PAGE)
    memory[PAGE + at] = 1
    zero(cpu, memory)
    check(memory)


def test_a_page_that_nobody_has_written_is_written_on_hardware_alone(cpu: ctypes.CDLL) -> None:
    """Under a hypervisor that would cost memory of the host's. /proc/self/pagemap tells of a page that was
    only read that it is that of all zeros: it is there, and it belongs to nobody alone."""
    emulated = ctypes.c_bool.in_dll(cpu, "emulated").value
    with mmap.mmap(-1, 3 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
        fresh.madvise(mmap.MADV_NOHUGEPAGE)
        zero(cpu, fresh)
        first = ctypes.c_char.from_buffer(fresh)
        page = ctypes.addressof(first) // PAGE + 1
        del first
        with Path("/proc/self/pagemap").open("rb") as pagemap:
            pagemap.seek(8 * page)
            entry = int.from_bytes(pagemap.read(8), "little")
        present, exclusive = entry >> 63 & 1, entry >> 56 & 1
        assert present
        assert exclusive == (not emulated)
        assert fresh[PAGE : 2 * PAGE] == bytes(PAGE)
