# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.arena import backing
from multiroot.arena.backing import Backing, DaxDevice, Kind, find_device
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import GIB, HUGE_PAGE

OWN = Path("/dev/multiroot-arena")


def device(root: Path, name: str, driver: str = "device_dax", align: int = HUGE_PAGE) -> None:
    _attributes(root / "sys/bus/dax/devices" / name, align)
    if driver:
        (root / "sys/bus/dax/devices" / name / "driver").symlink_to(f"../../../bus/dax/drivers/{driver}")


def own_device(root: Path) -> None:
    _attributes(root / "sys/class/misc/multiroot-arena", HUGE_PAGE)


def _attributes(folder: Path, align: int) -> None:
    folder.mkdir(parents=True)
    (folder / "size").write_text(f"{GIB}\n")
    (folder / "resource").write_text("0x240000000\n")
    (folder / "align").write_text(f"{align}\n")


def test_the_one_device(tmp_path: Path) -> None:
    device(tmp_path, "dax0.0")
    assert find_device(tmp_path) == DaxDevice(Path("/dev/dax0.0"), GIB, 0x240000000, HUGE_PAGE)


def test_a_kernel_without_device_dax_has_a_device_of_ours(tmp_path: Path) -> None:
    own_device(tmp_path)
    assert find_device(tmp_path) == DaxDevice(OWN, GIB, 0x240000000, HUGE_PAGE, Kind.OWN)


def test_both_kinds_are_several(tmp_path: Path) -> None:
    own_device(tmp_path)
    device(tmp_path, "dax0.0")
    with pytest.raises(ConflictError, match=r"dax0\.0, multiroot-arena"):
        find_device(tmp_path)


def test_memory_used_by_other_drivers_does_not_count(tmp_path: Path) -> None:
    device(tmp_path, "dax0.0", driver="kmem")
    device(tmp_path, "dax2.0", driver="")
    with pytest.raises(BadRequestError, match="no persistent memory") as refused:
        find_device(tmp_path)
    assert "ndctl" in refused.value.hint
    device(tmp_path, "dax1.0")
    assert find_device(tmp_path).node == Path("/dev/dax1.0")


def test_several(tmp_path: Path) -> None:
    device(tmp_path, "dax0.0")
    device(tmp_path, "dax1.0")
    with pytest.raises(ConflictError, match=r"dax0\.0, dax1\.0"):
        find_device(tmp_path)


def test_no_dax_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="no persistent memory"):
        find_device(tmp_path / "absent")


def test_alignment_that_does_not_suit(tmp_path: Path) -> None:
    device(tmp_path, "dax0.0", align=4096)
    with pytest.raises(BadRequestError, match="aligned to 0x1000"):
        find_device(tmp_path)


def test_a_device_that_is_not_devdax_is_refused() -> None:
    with pytest.raises(BadRequestError, match="/dev/null is no device of persistent memory"):
        Backing(Path("/dev/null"))


def test_pages_are_mapped_ahead_with_nothing_in_them_touched(tmp_path: Path) -> None:
    file = tmp_path / "arena"
    file.write_bytes(bytes(range(256)) * (2 * HUGE_PAGE // 256))
    before = file.read_bytes()
    opened = Backing(file)
    assert opened.populates()
    opened.close()
    assert file.read_bytes() == before


def test_a_kernel_that_cannot_map_ahead_is_not_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing, "_MADV_POPULATE_WRITE", 9999)  # as an older kernel sees the new advice
    file = tmp_path / "arena"
    file.write_bytes(bytes(2 * HUGE_PAGE))
    opened = Backing(file)
    assert not opened.populates()
    opened.close()
