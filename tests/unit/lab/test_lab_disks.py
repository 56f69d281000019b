# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that all roots of a lab machine see: which file the machine writes to, and where it lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from lab.machines import default_machine

from multiroot.errors import BadRequestError
from multiroot.lab import disk_import, lab_disks, state
from multiroot.lab.cache import Cache
from multiroot.lab.disk_import import DiskInfo
from multiroot.lab.lab_disks import LabDisk
from multiroot.lab.layout import Range, lay_out
from multiroot.lab.machine import qemu_argv
from multiroot.phases import Phases
from multiroot.units import GIB, MIB


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return Cache(tmp_path / "cache", Phases("workstation"))


def image(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.write(b"\0" * 510 + b"\x55\xaa")
        file.truncate(size)
    return path


def known(monkeypatch: pytest.MonkeyPatch, kind: str, size: int) -> None:
    """qemu-img says so of every file."""
    monkeypatch.setattr(disk_import, "inspect", lambda file, cache: DiskInfo(kind, size))
    monkeypatch.setattr(disk_import, "_qemu_img", lambda cache: ["qemu-img"])


def test_a_raw_file_is_the_disk_itself(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    file = image(tmp_path / "x.raw", 4 * MIB)
    known(monkeypatch, "raw", 4 * MIB)
    assert lab_disks.choose([str(file)], "default", cache) == (LabDisk(file, file, 4 * MIB),)
    with pytest.raises(BadRequestError, match=r"x\.raw is given twice"):
        lab_disks.choose([str(file), str(file)], "default", cache)
    image(file, 4 * MIB + 512)
    with pytest.raises(BadRequestError, match="no multiple of 2 MiB") as error:
        lab_disks.choose([str(file)], "default", cache)
    assert error.value.hint == f"make it larger: truncate --size={6 * MIB} {file}"


def test_an_image_that_is_larger_than_persistent_memory_can_be(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = image(tmp_path / "large.raw", lab_disks.MOST), image(tmp_path / "small.raw", 2 * MIB)
    known(monkeypatch, "raw", 0)
    assert len(lab_disks.choose([str(large)], "default", cache)) == 1
    with pytest.raises(BadRequestError, match=r"large\.raw is too large: .* room for 512 GiB"):
        lab_disks.choose([str(small), str(large)], "default", cache)


def test_what_is_not_raw_is_converted_to_a_copy(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, "qcow2", 3 * MIB)
    (disk,) = lab_disks.choose([f"{tmp_path}/x.qcow2"], "default", cache)
    assert disk.file == tmp_path / "state/multiroot/disks/default-1.raw"
    assert disk.size == 4 * MIB
    assert disk.copy[:2] == ("qemu-img", "convert")
    assert disk.copy[-1] == str(disk.file)


def test_an_image_stays_as_it_is(tmp_path: Path, cache: Cache) -> None:
    folder = tmp_path / "data/multiroot/images"
    folder.mkdir(parents=True)
    origin = image(folder / "mine.raw", 3 * MIB)
    disks = lab_disks.choose(["mine", "mine"], "two", cache)
    lab_disks.provide(disks, cache.phases)
    for disk in disks:
        data = disk.file.read_bytes()
        assert data[: 3 * MIB] == origin.read_bytes()
        assert len(data) == disk.size == 4 * MIB
        disk.file.write_bytes(b"spoiled")
    lab_disks.provide(disks, cache.phases)
    assert disks[0].file.read_bytes()[: 3 * MIB] == origin.read_bytes()


def test_what_is_no_image(cache: Cache) -> None:
    with pytest.raises(BadRequestError, match="no disk image called 'nosuch'"):
        lab_disks.choose(["nosuch"], "default", cache)
    with pytest.raises(BadRequestError, match="the image debian-13 is not built") as error:
        lab_disks.choose(["debian-13"], "default", cache)
    assert error.value.hint == "build it: multiroot vm image build debian-13"


def test_disks_touch_neither_the_image_nor_each_other() -> None:
    usual = {"old_memory": 2 * GIB, "arena": 384 * MIB, "carve": GIB, "carve_reserved": True}
    layout = lay_out(**usual, image=GIB, disks=(GIB, 2 * GIB))  # type: ignore[arg-type]
    image_range, first, second = layout.image, *layout.disks
    assert image_range.end < first.start
    assert first == Range(first.start, GIB)
    assert first.end < second.start
    assert layout.max_memory - layout.ram >= second.end - image_range.start


def test_the_machine_has_them_and_a_lab_that_runs_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = default_machine(tmp_path, monkeypatch)
    disk = LabDisk(tmp_path / "a.qcow2", tmp_path / "a.raw", GIB, ("cp", "a", "b"))
    layout = dataclasses.replace(plain.layout, disks=(Range(8 * GIB, GIB),))
    machine = dataclasses.replace(plain, disks=(disk,), layout=layout)
    argv = qemu_argv(machine)
    backend = f"memory-backend-file,id=pmem1,mem-path={disk.file},size={GIB},share=on"
    assert backend in argv
    assert f"nvdimm,memdev=pmem1,addr={8 * GIB:#x}" in argv
    assert "slots=2" in argv[argv.index("-m") + 1]
    state.create(machine, "digest")
    assert state.load("default").machine == machine
