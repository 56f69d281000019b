# SPDX-License-Identifier: GPL-2.0-or-later
"""checkpatch.pl --strict on the kernel module, with whatever kernel's scripts this machine has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

KMOD = Path(__file__).parents[3] / "csrc/kmod"
# The one header that must know versions; an array that kobject_uevent_env() takes as not const.
IGNORED = ("LINUX_VERSION_CODE", "CONSTANT_COMPARISON", "STATIC_CONST_CHAR_ARRAY")
PLACES = ("usr/src/linux-*/scripts", "usr/lib/linux-kbuild-*/scripts", "lib/modules/*/source/scripts")


def checkpatch() -> Path | None:
    """The newest one of installed kernel sources or headers."""
    found = sorted(each for place in PLACES for each in Path("/").glob(f"{place}/checkpatch.pl"))
    return found[-1] if found and shutil.which("perl") else None


def test_checkpatch_finds_nothing() -> None:
    script = checkpatch()
    if script is None:
        pytest.skip("no checkpatch.pl here: it comes with a kernel's source (package linux-source-*)")
    sources = sorted(path for path in KMOD.rglob("*") if path.suffix in (".c", ".h", ".S"))
    options = ["--no-tree", "--strict", "--terse", "--show-types", "--max-line-length=120"]
    ignore = ["--ignore", ",".join(IGNORED)]
    result = subprocess.run(
        [str(script), *options, *ignore, "-f", *map(str, sources)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    complaints = [line for line in result.stdout.splitlines() if not line.startswith("total:")]
    assert complaints == []
