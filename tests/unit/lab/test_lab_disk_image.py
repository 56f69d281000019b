# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of guests: where their parts are, what they are made from, who can make them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError, ConflictError
from multiroot.lab import disk_image, paths, recipes
from multiroot.lab.cache import Cache
from multiroot.lab.disk_image import DiskIds, lay_out
from multiroot.phases import Phases
from multiroot.units import GIB, KIB, MIB

IMAGES = paths.recipes_dir() / "images"
NAMES = recipes.disk_image_names()
sizes = st.integers(1024, 1 << 20).map(lambda count: count * MIB)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", Phases("workstation"))


@given(sizes)
def test_parts_lie_behind_one_another(size: int) -> None:
    layout = lay_out(size)
    end = MIB  # the first copy of the table
    for start, length in (layout.bios_boot, layout.esp, layout.root):
        assert start == end
        assert length > 0
        assert length % MIB == 0
        end = start + length
    assert end == size - MIB, "the second copy of the table"


@pytest.mark.parametrize("size", [MIB, GIB - MIB, GIB + 512])
def test_sizes_that_are_none(size: int) -> None:
    with pytest.raises(BadRequestError, match=r"a disk image cannot be .* large"):
        lay_out(size)


@given(sizes)
def test_the_table_has_all_parts_in_sectors(size: int) -> None:
    layout = lay_out(size)
    options = disk_image.table_options(layout, DiskIds.of("1"))
    found = [tuple(map(int, re.findall(r"\d+", each))) for each in options if each.startswith("--new=")]
    parts = (layout.bios_boot, layout.esp, layout.root)
    assert found == [
        (number, start // 512, (start + length) // 512 - 1) for number, (start, length) in enumerate(parts, 1)
    ]
    guids = [each.rpartition(":")[2] for each in options if each.startswith("--partition-guid=")]
    assert len(set(guids)) == len(parts)


def test_other_inputs_give_other_ids() -> None:
    assert DiskIds.of("a") == DiskIds.of("a")
    assert {DiskIds.of("a").root, DiskIds.of("a").disk}.isdisjoint(
        {DiskIds.of("b").root, DiskIds.of("b").disk}
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_image_of_ours_is_valid(name: str, cache: Cache) -> None:
    assert disk_image.artifact(name, cache).name == f"disk-{name}"
    marked = [IMAGES / name / "files" / each for each in ("etc/fstab", "boot/grub/grub.cfg")]
    for path in (*marked, IMAGES / "grub-early.cfg"):
        text = disk_image.marked(path.read_text(), DiskIds.of("x").root)
        assert str(DiskIds.of("x").root) in text
        assert "@ROOT@" not in text
    assert os.access(IMAGES / name / "configure", os.X_OK)


def test_what_is_not_known_is_refused(cache: Cache) -> None:
    with pytest.raises(BadRequestError, match="no disk image called 'debian-1'") as raised:
        disk_image.artifact("debian-1", cache)
    assert "debian-13" in raised.value.hint


def test_building_needs_root(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BadRequestError, match="building a disk image needs root") as raised:
        disk_image.build("debian-13", cache)
    assert "'multiroot vm image build debian-13' through sudo" in raised.value.hint
    assert disk_image.built("debian-13", cache) is None
    with pytest.raises(BadRequestError, match="making the tools for disks needs root"):
        disk_image.tools(cache)


def test_what_is_there_needs_no_root(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.path(disk_image.artifact("debian-13", cache))
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert disk_image.build("debian-13", cache) == folder
    assert disk_image.built("debian-13", cache) == folder / "disk.raw"


def test_zeros_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"\0" * (4 * MIB) + b"x" * 100 + b"\0" * MIB + b"y")
    target.touch()
    os.truncate(target, 16 * MIB)
    disk_image.copy_into(source, target, MIB)
    data = target.read_bytes()
    assert data == b"\0" * MIB + source.read_bytes() + b"\0" * (16 * MIB - MIB - source.stat().st_size)
    assert target.stat().st_blocks * 512 <= 4 * 64 * KIB


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    disk, output = tmp_path / "disk", tmp_path / "copy.raw"
    disk.write_bytes(b"d" * 100)
    os.truncate(disk, 8 * MIB)
    phases = Phases("workstation")
    disk_image.copy_to(disk, output, phases)
    assert output.read_bytes() == disk.read_bytes()
    assert output.stat().st_blocks * 512 < MIB
    assert [phase.name for phase in phases.finished] == ["copy the image"]
    with pytest.raises(ConflictError, match="is there already"):
        disk_image.copy_to(disk, output, phases)
    with pytest.raises(BadRequestError, match="no folder"):
        disk_image.copy_to(disk, tmp_path / "none/copy", phases)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.raw", "disk"]
