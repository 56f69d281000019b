# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot arena` where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import Run

from multiroot.arena import backing
from multiroot.device import handle


@pytest.mark.parametrize(
    ("is_root", "hint"), [(False, "multiroot lab exec"), (True, "ndctl create-namespace")]
)
def test_only_a_root_is_told_how_to_make_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_root: bool, hint: str
) -> None:
    """On somebody's workstation that command would take away what their persistent memory is used for."""
    monkeypatch.setattr(backing.find_devices, "__defaults__", (tmp_path,))
    monkeypatch.setattr(backing.find_device, "__defaults__", (tmp_path,))
    monkeypatch.setattr(handle, "DEVICE", tmp_path if is_root else tmp_path / "none")
    for command in ("show", "format"):
        done = run("arena", command)
        assert (done.code, done.out) == (2, "")
        assert hint in done.err
        assert ("ndctl" in done.err) == is_root
