# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels given by path: what must be there, and what is said when it is not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError
from multiroot.lab.kernels import KernelSource, release_of

RELEASE = "6.12.1-mine"


def bzimage(release: str = RELEASE) -> bytes:
    image = bytearray(0x4000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x3000 - 0x200)
    text = f"{release} (me@here) #1 SMP".encode() + b"\0"
    image[0x3000 : 0x3000 + len(text)] = text
    return bytes(image)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "boot/vmlinuz"
    path.parent.mkdir()
    path.write_bytes(bzimage())
    return path


def install(folder: Path) -> Path:
    modules = folder / RELEASE
    (modules / "kernel").mkdir(parents=True)
    (modules / "build").mkdir()
    for name in ("Makefile", ".config"):
        (modules / "build" / name).touch()
    return modules


def test_the_release_is_in_the_header(kernel: Path) -> None:
    assert release_of(kernel) == RELEASE


@pytest.mark.parametrize("where", ["boot/lib/modules", "lib/modules"])
def test_modules_are_found_beside_the_kernel(kernel: Path, tmp_path: Path, where: str) -> None:
    modules = install(tmp_path / where)
    source = KernelSource.locate(kernel)
    assert (source.release, source.modules, source.build) == (RELEASE, modules, modules / "build")


def test_modules_can_be_named(kernel: Path, tmp_path: Path) -> None:
    modules = install(tmp_path / "elsewhere")
    assert KernelSource.locate(kernel, modules).modules == modules


def test_no_modules(kernel: Path) -> None:
    with pytest.raises(BadRequestError, match=f"no modules of kernel {RELEASE} .*lib/modules"):
        KernelSource.locate(kernel)


@pytest.mark.parametrize("missing", ["Makefile", ".config"])
def test_no_build_tree(kernel: Path, tmp_path: Path, missing: str) -> None:
    modules = install(tmp_path / "lib/modules")
    (modules / "build" / missing).unlink()
    with pytest.raises(BadRequestError, match="no build tree"):
        KernelSource.locate(kernel)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a bzImage"),
        (b"\x7fELF" + bytes(0x4000), "not a bzImage"),
        (bytes(0x202) + b"HdrS" + bytes(0x4000), "does not tell its kernel release"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    with pytest.raises(BadRequestError, match=says):
        release_of(path)


def test_a_kernel_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="No such file"):
        release_of(tmp_path / "none")
