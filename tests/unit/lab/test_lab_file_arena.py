# SPDX-License-Identifier: GPL-2.0-or-later
"""How a later root's boot script reads where the first root's file lies, without mounting anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from multiroot.lab import paths

SCRIPT = "image/files/usr/lib/multiroot/devices"
STAT = "Inode: 12   Type: regular    Mode:  0600   Flags: 0x80000\nSize: 1606418432\nEXTENTS:\n"


def piece(tmp_path: Path, extents: str) -> tuple[int, str]:
    """Exit code and output of the script's function, when debugfs prints these extents."""
    for name, text in {"debugfs": f"cat {tmp_path}/told\n", "busybox": 'exec "$@"\n'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "told").write_text(STAT + extents)
    script = (paths.recipes_dir() / SCRIPT).read_text()
    begin = script.index("piece_of() {")
    function = script[begin : script.index("\n}\n", begin) + 3]
    done = subprocess.run(
        ["sh", "-c", f"{function}\npiece_of /dev/pmem0"],
        env={"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("extents", "said"),
    [
        ("(0-32767):512-33279, (32768-56831):33280-57343\n", "file_start=2097152 file_size=232783872\n"),
        ("(ETB0):511, (0-32767):512-33279\n", "file_start=2097152 file_size=134217728\n"),
        ("(0-1073741823):1073741824-2147483647\n", "file_start=4398046511104 file_size=4398046511104\n"),
    ],
)
def test_one_piece(tmp_path: Path, extents: str, said: str) -> None:
    assert piece(tmp_path, extents) == (0, said)


@pytest.mark.parametrize(
    "extents",
    [
        "",
        "(0-32767):512-33279, (32768-56831):43280-67343\n",  # in two
        "(0-32767):512-33279, (40000-64063):33280-57343\n",  # with a hole
        "(32768-56831):33280-57343\n",
        "(0-32767[u]):512-33279\n",  # was never written
        "(0-32767):512-33279, (32768):33280\n",
        "rm -rf\n",
    ],
)
def test_what_is_not_one_piece(tmp_path: Path, extents: str) -> None:
    code, said = piece(tmp_path, extents)
    assert (code != 0, said) == (True, "")


@pytest.mark.skipif(not shutil.which("mke2fs") or not shutil.which("debugfs"), reason="needs e2fsprogs")
@pytest.mark.parametrize("size_mib", [64, 382, 5000])
def test_the_recipe_makes_one_piece_that_begins_at_2_mib(tmp_path: Path, size_mib: int) -> None:
    """By the programs that a root has, on a file of holes."""
    disk = tmp_path / "disk"
    with disk.open("wb") as made:
        made.truncate(size_mib << 20)
    recipe = (paths.recipes_dir() / SCRIPT).with_name("mke2fs.conf")
    subprocess.run(
        ["mke2fs", "-q", "-F", "-T", "arena", "-N", "16", "-L", "multiroot-arena", disk],
        env={"MKE2FS_CONFIG": str(recipe), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        check=True,
    )
    stat = subprocess.run(
        [shutil.which("debugfs") or "", "-c", "-R", "stat /memory", disk],
        capture_output=True,
        text=True,
        check=True,
    )
    _, _, extents = stat.stdout.partition("EXTENTS:\n")
    size = (size_mib - 2) << 20
    assert piece(tmp_path, extents) == (0, f"file_start={2 << 20} file_size={size}\n")
