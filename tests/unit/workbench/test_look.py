# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel is asked in a trial, by the scripts themselves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from multiroot.lab.execution import Result
from multiroot.verdict.findings import Source
from multiroot.workbench import look

NEW = Source("new", "6.12.1", 2)
LEAK = "unreferenced object 0xffff888004a2c000 (size 64):\n"


def asked(kmemleak: Path, programs: Path) -> look.Scan:
    """What the script makes of that file; it can mount nothing here."""
    mount = programs / "mount"
    mount.write_text("#!/bin/sh\nexit 1\n")
    mount.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", look.LEAKS, "sh", str(kmemleak), "0"],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return look.scanned(Result(done.returncode, done.stdout, done.stderr), NEW)


def test_a_kernel_without_kmemleak(tmp_path: Path) -> None:
    assert asked(tmp_path / "none", tmp_path) == look.Scan(why_none="its kernel is built without it")


def test_a_kmemleak_that_is_off_has_not_looked(tmp_path: Path) -> None:
    """It is there and refuses what is written to it, as /dev/full does."""
    scan = asked(Path("/dev/full"), tmp_path)
    assert scan.found == ()
    assert scan.why_none.startswith("it does not scan, and may be off: ")


def test_what_it_finds(tmp_path: Path) -> None:
    file = tmp_path / "kmemleak"
    file.touch()
    assert asked(file, tmp_path) == look.Scan()
    (found,) = look.scanned(Result(0, LEAK, ""), NEW).found
    assert (found.kind, found.source) == ("kmemleak", NEW)


@pytest.mark.parametrize(("code", "says"), [(1, "exited with 1"), (137, "was killed by SIGKILL")])
def test_a_scan_that_fails_without_a_word(code: int, says: str) -> None:
    assert says in look.scanned(Result(code, LEAK, ""), NEW).why_none
