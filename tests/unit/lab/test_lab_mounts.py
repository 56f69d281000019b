# SPDX-License-Identifier: GPL-2.0-or-later
"""What a killed build left mounted is not taken for files of the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multiroot.lab import mounts

INFO = """\
22 28 0:21 / /proc rw - proc proc rw
61 28 8:1 / /cache rw - ext4 /dev/sda1 rw
70 61 0:21 / /cache/.a.partial/tree/proc rw - proc proc rw
71 61 0:22 / /cache/.a.partial/tree/sys rw - sysfs sys rw
72 71 0:23 / /cache/.a.partial/tree/sys/with\\040space rw - tmpfs none rw
73 61 0:24 / /cache/.a.partial.other/tree/proc rw - proc proc rw
"""
# Runs in a mount namespace of its own: a build was killed, and the next one begins.
KILLED_BUILD = """
import subprocess, sys
from pathlib import Path
from multiroot.lab.artifacts import Artifact
from multiroot.lab.cache import Cache
from multiroot.phases import Phases

root, outside = Path(sys.argv[1]), Path(sys.argv[2])
cache = Cache(root, Phases("workstation"))
artifact = Artifact("a", {}, lambda out: (out / "made").write_text("whole"))
left = root / f".{artifact.key}.partial" / "tree"
left.mkdir(parents=True)
subprocess.run(["mount", "--bind", outside, left], check=True)
assert (cache.ensure(artifact) / "made").read_text() == "whole"
"""


def test_those_below_a_folder_the_innermost_first() -> None:
    tree = Path("/cache/.a.partial/tree")
    assert mounts.below(INFO, tree.parent) == [tree / "sys/with space", tree / "sys", tree / "proc"]
    assert mounts.below(INFO, Path("/cache/.b.partial")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_a_killed_build_had_mounted_is_not_removed_with_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    script = [sys.executable, "-c", KILLED_BUILD, tmp_path / "cache", outside]
    subprocess.run(["unshare", "--mount", *script], check=True, timeout=60)
    assert (outside / "kept").read_text() == "kept"
    assert not list((tmp_path / "cache").glob("*.partial"))
