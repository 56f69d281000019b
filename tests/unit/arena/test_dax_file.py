# SPDX-License-Identifier: GPL-2.0-or-later
"""An arena that is a file of ext4 with DAX: where it lies, and what is refused."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from multiroot.arena import backing, dax_file
from multiroot.arena.backing import DaxDevice, Kind, find_device, kind_of
from multiroot.arena.dax_file import Piece
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import GIB, HUGE_PAGE, MIB

DATA = 0x100200000  # where the namespace's data begins
OPTIONS = "rw,noatime,dax=always"
WHOLE = [Piece(0, HUGE_PAGE, 128 * MIB), Piece(128 * MIB, HUGE_PAGE + 128 * MIB, 128 * MIB)]

Ioctl = Callable[[int, int, bytearray], int]


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Piece]], None]:
    def here(pieces: list[Piece]) -> None:
        monkeypatch.setattr(dax_file, "pieces", lambda _: pieces)

    return here


def mounted(top: Path, options: str = OPTIONS, data: int = DATA) -> None:
    file = dax_file.under(top)
    file.parent.mkdir(parents=True)
    with file.open("wb") as made:
        made.truncate(256 * MIB)
    (top / "proc").mkdir()
    table = f"tmpfs /run tmpfs rw 0 0\n/dev/pmem1 /run/multiroot/arena ext4 {options} 0 0\n"
    (top / "proc/mounts").write_text(table)
    namespace = top / "sys/class/block/pmem1/device"
    namespace.mkdir(parents=True)
    (namespace / "resource").write_text(f"{data:#x}\n")


def test_the_file_is_found_with_its_address(tmp_path: Path, lies: Callable[[list[Piece]], None]) -> None:
    mounted(tmp_path)
    lies(WHOLE)
    wanted = DaxDevice(dax_file.FILE, 256 * MIB, DATA + HUGE_PAGE, HUGE_PAGE, Kind.FILE)
    assert find_device(tmp_path) == wanted
    assert not wanted.kind.pins


def test_a_device_beside_it_is_one_too_many(tmp_path: Path, lies: Callable[[list[Piece]], None]) -> None:
    mounted(tmp_path)
    lies(WHOLE)
    own = tmp_path / "sys/class/misc" / backing.OWN_DEVICE
    own.mkdir(parents=True)
    with pytest.raises(ConflictError, match="multiroot-arena, memory"):
        find_device(tmp_path)


def test_a_folder_where_nothing_is_mounted_is_no_arena(tmp_path: Path) -> None:
    mounted(tmp_path)
    (tmp_path / "proc/mounts").write_text("tmpfs /run tmpfs rw 0 0\n")
    with pytest.raises(BadRequestError, match="no persistent memory"):
        find_device(tmp_path)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([], "has no blocks"),
        ([WHOLE[0], Piece(128 * MIB, GIB, 128 * MIB)], "lies in 2 pieces"),
        ([Piece(HUGE_PAGE, HUGE_PAGE, MIB)], "lies in 2 pieces"),  # begins with a hole
        ([WHOLE[0], Piece(130 * MIB, HUGE_PAGE + 130 * MIB, MIB)], "lies in 2 pieces"),  # has one
        ([WHOLE[0], Piece(128 * MIB, HUGE_PAGE + 128 * MIB, MIB, plain=False)], "0x8000000 .* never written"),
        (WHOLE[:1], "no blocks from 0x8000000 on"),
        ([Piece(0, 4096, GIB)], "begins at 0x100201000"),
    ],
)
def test_a_file_that_lies_otherwise_is_refused_in_words_that_tell_how_to_mend_it(
    tmp_path: Path, lies: Callable[[list[Piece]], None], pieces: list[Piece], said: str
) -> None:
    mounted(tmp_path)
    lies(pieces)
    with pytest.raises((BadRequestError, ConflictError), match=said) as refused:
        find_device(tmp_path)
    assert "multirootd.ext4-arena" in refused.value.hint


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("run/multiroot/arena/memory", "there is no"),
        ("sys/class/block/pmem1/device/resource", "not on persist"),
    ],
)
def test_what_is_mounted_there_has_no_such_file(tmp_path: Path, missing: str, said: str) -> None:
    mounted(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BadRequestError, match=said):
        find_device(tmp_path)


@pytest.mark.parametrize("options", ["rw,noatime", "rw,dax=never", "rw,dax=inode"])
def test_a_file_system_without_dax_is_refused(tmp_path: Path, options: str) -> None:
    mounted(tmp_path, options)
    with pytest.raises(BadRequestError, match="mounted without DAX") as refused:
        find_device(tmp_path)
    assert "dax=always" in refused.value.hint


def answering(extents: list[tuple[int, int, int, int]], at_once: int) -> Ioctl:
    """FIEMAP for a file with these extents (logical, physical, size, flags), so many at a time."""

    def ioctl(_fd: int, request: int, answer: bytearray) -> int:
        assert request == dax_file._FIEMAP
        start = dax_file._REQUEST.unpack_from(answer)[0]
        told = [each for each in extents if each[0] + each[2] > start][:at_once]
        dax_file._REQUEST.pack_into(answer, 0, start, 0, 0, len(told), at_once, 0)
        for number, each in enumerate(told):
            place = dax_file._REQUEST.size + number * dax_file._EXTENT.size
            dax_file._EXTENT.pack_into(answer, place, *each)
        return 0

    return ioctl


def test_the_kernel_is_asked_until_it_has_told_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extents = [(0, 512, 100, 0), (100, 612, 100, 0x1000), (200, 9000, 100, 0x800), (300, 9100, 1, 0x1)]
    monkeypatch.setattr(fcntl, "ioctl", answering(extents, 2))
    (tmp_path / "file").touch()
    found = dax_file.pieces(tmp_path / "file")
    assert found == [
        Piece(0, 512, 100),
        Piece(100, 612, 100),
        Piece(200, 9000, 100, plain=False),
        Piece(300, 9100, 1),
    ]


def test_a_file_system_that_tells_of_no_extents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    (tmp_path / "file").touch()
    with pytest.raises(ConflictError, match="nobody can tell where it lies: Operation not supported"):
        dax_file.pieces(tmp_path / "file")


def test_the_layout_of_fiemap_is_the_kernels() -> None:
    """struct fiemap and struct fiemap_extent of include/uapi/linux/fiemap.h."""
    assert (dax_file._REQUEST.size, dax_file._EXTENT.size) == (32, 56)


@pytest.mark.parametrize(
    ("node", "kind"),
    [(dax_file.FILE, Kind.FILE), (Path("/dev/null"), Kind.DEVICE_DAX), (Path("/etc/passwd"), Kind.PLAIN)],
)
def test_the_kind_of_a_path(node: Path, kind: Kind) -> None:
    assert kind_of(node) is kind
