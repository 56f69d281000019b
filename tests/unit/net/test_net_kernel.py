# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOT_PERMITTED = 77


def test_bridge_links_and_taps_in_a_namespace() -> None:
    path = os.pathsep.join([str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, HERE / "in_namespace.py"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NOT_PERMITTED:
        pytest.skip("no network namespaces or taps for this user (run as root)")
    assert done.returncode == 0, done.stderr


def test_entering_pyroute2_narrowly_leaves_the_package_whole() -> None:
    code = (
        "from multiroot.net.netlink import _load; _load()\n"
        "import sys; assert 'pyroute2.ndb' not in sys.modules\n"
        "import pyroute2; assert pyroute2.IPRoute and pyroute2.NDB"
    )
    path = os.pathsep.join([str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
