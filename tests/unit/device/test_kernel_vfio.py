# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/vfio, compiled for this program: whoever has the VFIO file may call it with several threads."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kernel_code import at_places, compiled

EINVAL = -22
STOP, RUNNING, RESUMING = 1, 2, 4  # enum vfio_device_mig_state
SOURCES = ("vfio/stream.c", "vfio/vectors.c", "vfio/migration.c")
SIZE = 16
MASTER, MEMORY = 4, 2  # of a function's command register
RENDEZVOUS_S = 10


class Stream:
    """Files of the migration stream."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for function in (library.save, library.load):
            function.restype = ctypes.c_void_p
        for function in (library.put, library.get):
            function.restype = ctypes.c_ssize_t
        library.fits.restype = ctypes.c_bool
        self.file = ctypes.c_void_p(library.load())

    def whole(self) -> bytes:
        """What the giver's side says."""
        file, text = ctypes.c_void_p(self.library.save()), ctypes.create_string_buffer(2 * SIZE)
        size = self.library.get(file, text, ctypes.c_size_t(2 * SIZE))
        self.library.end(file)
        return text.raw[:size]

    def write(self, text: bytes) -> int:
        return int(self.library.put(self.file, text, ctypes.c_size_t(len(text))))

    def fits(self) -> bool:
        return bool(self.library.fits(self.file))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("vfio")
    return ctypes.CDLL(str(compiled(folder, "vfio.h", "vfio_glue.c", *SOURCES)))


@pytest.fixture
def stream(library: ctypes.CDLL) -> Stream:
    return Stream(library)


def test_a_stream_in_pieces_is_taken_and_nothing_behind_it(stream: Stream) -> None:
    whole = stream.whole()
    assert len(whole) == SIZE
    assert [stream.write(whole[:5]), stream.write(whole[5:15])] == [5, 10]
    assert not stream.fits()
    assert stream.write(whole[14:]) == EINVAL
    assert stream.write(whole[15:]) == 1
    assert stream.fits()
    assert [stream.write(b"x"), stream.write(b"x" * 17), stream.write(b"")] == [EINVAL, EINVAL, 0]
    assert stream.fits()


@pytest.mark.parametrize("sizes", [(16, 16), (9, 9), (1, 16)])
def test_of_two_writers_at_once_one_comes_after_the_other(stream: Stream, sizes: tuple[int, int]) -> None:
    """Both are inside before either copies; together they have more than there is room for."""
    both_inside = threading.Barrier(2, timeout=RENDEZVOUS_S)

    def meet(where: str) -> None:
        if where == "copy_from_user":
            both_inside.wait()

    with at_places(stream.library, meet), ThreadPoolExecutor(2) as threads:
        done = sorted(threads.map(stream.write, [b"x" * size for size in sizes]))
    assert not both_inside.broken
    assert done[0] == EINVAL
    assert done[1] in sizes
    left = SIZE - done[1]
    assert stream.write(b"y" * (left + 1)) == EINVAL
    assert stream.write(b"y" * left) == left


@pytest.mark.parametrize("command", [MASTER | MEMORY, MASTER, 0])
def test_interrupts_are_written_while_vfio_can_not_free_them_or_hide_their_table(
    library: ctypes.CDLL, command: int
) -> None:
    """VFIO makes and frees descriptors under its igate, whenever another thread calls SET_IRQS. The VMM may
    have turned the card's memory off, and may do so at any time: it is on for as long as that takes."""
    for name in ("injected", "restored", "unguarded", "undecoded"):
        ctypes.c_int.in_dll(library, name).value = 0
    library.set_command(command)
    assert library.remap(2) & 0xFFFFFFFF == 0xFEE00010 | 2 << 5
    assert library.raise_all() == 3
    names = ("injected", "restored", "unguarded", "undecoded")
    numbers = [ctypes.c_int.in_dll(library, name).value for name in names]
    assert numbers == [3, 1, 0, 0]
    assert library.command() == command


def test_a_device_goes_on_resuming_until_its_stream_is_whole(library: ctypes.CDLL, stream: Stream) -> None:
    """A VMM may ask for the end of it too early, and again."""

    def go(state: int) -> int:
        return int(library.set_state(state, ctypes.byref(stream.file)))

    whole = stream.whole()
    assert [go(STOP), go(RESUMING)] == [0, 0]
    loading = ctypes.c_void_p(stream.file.value)
    assert [go(STOP), go(STOP), go(RUNNING)] == [EINVAL] * 3
    stream.file = loading
    assert stream.write(whole) == SIZE
    assert [go(STOP), go(RUNNING)] == [0, 0]
