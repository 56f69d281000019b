# SPDX-License-Identifier: GPL-2.0-or-later
"""Initramfs archives and the modules in them."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from multiroot.errors import CommandError
from multiroot.kexec.cpio import Archive
from multiroot.lab import modules


def example() -> bytes:
    archive = Archive()
    archive.device("dev/console", 5, 1)
    archive.file("init", b"#!/bin/sh\n", 0o755)
    archive.file("modules/a/b.ko", b"x" * 4097)
    archive.folder("modules/a")
    return archive.finish()


def entries(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of each entry, read by the format's description."""
    found, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = at + -(-(110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], data[start : start + fields[6]]))
        at = start + -(-fields[6] // 4) * 4


def test_every_file_comes_after_its_folders_once() -> None:
    assert [(name, oct(mode), len(content)) for name, mode, content in entries(example())] == [
        ("dev", "0o40755", 0),
        ("dev/console", "0o20600", 0),
        ("init", "0o100755", 10),
        ("modules", "0o40755", 0),
        ("modules/a", "0o40755", 0),
        ("modules/a/b.ko", "0o100644", 4097),
    ]


def test_the_same_files_give_the_same_bytes() -> None:
    assert example() == example()


@pytest.mark.skipif(not shutil.which("cpio"), reason="no cpio here to read the archive with")
def test_cpio_reads_it(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("a/b", b"text", 0o755)
    subprocess.run(["cpio", "-id", "--quiet"], input=archive.finish(), cwd=tmp_path, check=True)
    assert (tmp_path / "a/b").read_text() == "text"
    assert (tmp_path / "a/b").stat().st_mode & 0o111


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """lib/modules/RELEASE with what depmod would write."""
    lines = [
        "kernel/nd/nd_pmem.ko.xz: kernel/nd/nd_btt.ko.xz kernel/nd/libnvdimm.ko.xz",
        "kernel/nd/nd_btt.ko.xz: kernel/nd/libnvdimm.ko.xz",
        "kernel/nd/libnvdimm.ko.xz:",
        "kernel/kvm/kvm-amd.ko: kernel/kvm/kvm.ko",
        "kernel/kvm/kvm.ko:",
    ]
    (tmp_path / "modules.dep").write_text("\n".join(lines) + "\n")
    (tmp_path / "modules.builtin").write_text("kernel/fs/erofs/erofs.ko\n")
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [modules.plain_name(path) for path in paths]


def test_needs_are_loaded_first_and_once(folder: Path) -> None:
    order = modules.load_order(folder, ["nd_pmem", "kvm_amd", "nd_btt"])
    assert names(order) == ["libnvdimm.ko", "nd_btt.ko", "nd_pmem.ko", "kvm.ko", "kvm-amd.ko"]


def test_built_in_and_optional_modules_are_left_out(folder: Path) -> None:
    assert modules.load_order(folder, ["erofs", "nfit?"]) == []


def test_an_unknown_module_is_an_error(folder: Path) -> None:
    with pytest.raises(CommandError, match="has no module nfit"):
        modules.load_order(folder, ["nfit"])


def test_modules_are_read_decompressed(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"plain")
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"packed"))
    assert modules.read_module(tmp_path / "a.ko", []) == b"plain"
    assert modules.read_module(tmp_path / "b.ko.xz", []) == b"packed"
