# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab doctor` against made-up workstations."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from multiroot.doctor.checks import Finding, examine
from multiroot.lab import doctor
from multiroot.lab.doctor import WorkstationDoctor
from multiroot.units import GIB

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workstation with everything, KVM too."""
    nested = tmp_path / "sys/module/kvm_intel/parameters/nested"
    for path, text in ((nested, "Y\n"), (tmp_path / "dev/kvm", "")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 16000000 kB\n")
    (tmp_path / "cache/image-0123456789abcdef").mkdir(parents=True)
    monkeypatch.setattr(doctor.proc, "find", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(90 * GIB, 0, 90 * GIB))
    return tmp_path


def look(top: Path) -> dict[str, Finding]:
    return {each.id: each for each in examine(WorkstationDoctor(top, top / "cache").checks())}


def test_a_workstation_with_everything(top: Path) -> None:
    assert {finding.status.value for finding in look(top).values()} == {"ok"}


def check(top: Path, name: str, status: str, says: str) -> None:
    found = look(top)[name]
    assert (found.status, says in found.found) == (status, True), found
    assert found.mend


def test_missing_programs_are_named(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.proc, "find", lambda program: None if program == "mmdebstrap" else "/x")
    check(top, "packages", "failed", "not found: mmdebstrap")


def test_without_root_trees_cannot_be_built(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    check(top, "root", "warning", "not root")


def test_an_empty_cache_needs_more_disk(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(90 * GIB, 0, 3 * GIB))
    assert look(top)["disk"].status == "ok"
    (top / "cache/image-0123456789abcdef").rmdir()
    check(top, "cache", "warning", "nothing is built")
    check(top, "disk", "failed", "3.0 GiB free")
    (top / "cache").rmdir()
    check(top, "disk", "failed", "3.0 GiB free")


def test_little_memory_is_a_warning(top: Path) -> None:
    (top / "proc/meminfo").write_text("MemAvailable: 1000000 kB\n")
    check(top, "memory", "warning", "1.0 GiB available")


def test_kvm_without_nesting_is_of_no_use(top: Path) -> None:
    (top / "sys/module/kvm_intel/parameters/nested").write_text("N\n")
    check(top, "accelerator", "warning", "does not let its guests use KVM")
    (top / "dev/kvm").unlink()
    assert look(top)["accelerator"].status == "ok"
    assert "TCG" in look(top)["accelerator"].found


def test_looking_leaves_nothing_behind(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(top / "elsewhere"))
    examine(WorkstationDoctor(top).checks())
    assert not (top / "elsewhere").exists()
