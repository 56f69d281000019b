# SPDX-License-Identifier: GPL-2.0-or-later
"""checkpatch.pl --strict finds nothing in the kernel modules, and does find what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot.lab import lab, recipes, roots
from multiroot.phases import Phases

KMOD = Path(__file__).parents[2] / "csrc/kmod"
# The one header that must know versions; an array that kobject_uevent_env() takes as not const.
IGNORED = ("LINUX_VERSION_CODE", "CONSTANT_COMPARISON", "STATIC_CONST_CHAR_ARRAY")
OPTIONS = ("--no-tree", "--strict", "--terse", "--show-types", "--max-line-length=120")


@pytest.fixture(scope="module")
def tree() -> Path:
    """The Debian tree with the kernel's checkpatch.pl."""
    cache = lab.cache(Phases("workstation"))
    return cache.ensure(roots.artifact("checkpatch", recipes.roots().checkpatch)) / roots.TREE


@pytest.fixture
def copy(tree: Path) -> Iterator[Path]:
    """A copy of the modules' sources inside the tree, where a test may spoil them."""
    folder = tree / f"tmp/kmod-{os.getpid()}"
    shutil.copytree(KMOD, folder)
    yield folder
    shutil.rmtree(folder)


def complaints(tree: Path, folder: Path) -> list[str]:
    """What checkpatch.pl says about the sources in a folder of the tree."""
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".c", ".h", ".S"))
    names = [f"/{path.relative_to(tree)}" for path in sources]
    script = ["/usr/bin/perl", "/srv/checkpatch/checkpatch.pl", *OPTIONS, "--ignore", ",".join(IGNORED), "-f"]
    result = subprocess.run(
        ["chroot", tree, *script, *names],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "LC_ALL": "C"},
    )
    found = [line for line in result.stdout.splitlines() if not line.startswith("total:")]
    # A checker that did not run says nothing, too.
    assert result.returncode == (1 if found else 0), result.stderr
    return found


def test_checkpatch_finds_nothing(tree: Path, copy: Path) -> None:
    assert complaints(tree, copy) == []


def test_checkpatch_finds_what_is_wrong(tree: Path, copy: Path) -> None:
    main = copy / "core/main.c"
    main.write_text(main.read_text() + "int  mr_bad( void ) {return 0;}\n")
    found = complaints(tree, copy)
    assert found
    assert all("core/main.c" in line for line in found)
