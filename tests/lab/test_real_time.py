# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels without device-dax as roots, as every one with PREEMPT_RT is.

Proves that the arena is the same memory by our own device. So a VM goes there and back, and through updates,
also between a root with the one and a root with the other. And it maps huge pages where a kernel has them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
NAME = f"rt-{os.getpid()}"


def trial(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multiroot.cli.main", "try", "--name", NAME, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )


@pytest.mark.parametrize(
    ("old", "new"), [("6.12-rt", "6.12-rt"), ("6.1-rt", "6.1-rt"), ("6.1-rt", "6.12"), ("7.x", "6.12-rt")]
)
def test_a_vm_lives_through_updates_by_real_time_kernels(old: str, new: str) -> None:
    """The standard job: a handoff there and back, an update, and the next one, to the old root's kernel."""
    done = trial("--old", old, "--new", new)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kernel", "size"), [("6.1", "4 KiB"), ("6.12", "2 MiB"), ("7.x", "2 MiB")])
def test_huge_pages_where_the_kernel_has_them(kernel: str, size: str, tmp_path: Path) -> None:
    """6.1 asks nobody but DAX files for a huge page."""
    script = tmp_path / "pages.sh"
    script.write_text("#!/bin/sh\nls /dev/multiroot-arena && multiroot vm show vm1\n")
    script.chmod(0o755)
    done = trial("--old", kernel, "--backend", "own", "--", script)
    assert done.returncode == 0, done.stderr
    assert f"of {size}" in done.stdout
