# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

from multiroot.units import GIB, HUGE_PAGE, KIB
from multiroot.vm.nested_pages import counts


def vm(kvm: Path, name: str, **files: str) -> None:
    (kvm / name).mkdir(parents=True)
    for file, text in files.items():
        (kvm / name / file).write_text(text)


def test_pages_are_counted_by_their_size(tmp_path: Path) -> None:
    vm(tmp_path, "120-14", pages_4k="9\n", pages_2m="128\n", pages_1g="1\n", halt_exits="77\n")
    vm(tmp_path, "12-14", pages_2m="500\n")
    assert counts(120, tmp_path) == {4 * KIB: 9, HUGE_PAGE: 128, GIB: 1}


def test_sizes_of_which_there_is_none_are_left_out(tmp_path: Path) -> None:
    vm(tmp_path, "120-14", pages_4k="0\n", pages_2m="128\n")
    assert counts(120, tmp_path) == {HUGE_PAGE: 128}


def test_what_is_not_told_is_not_invented(tmp_path: Path) -> None:
    vm(tmp_path, "120-14", pages_4k="many\n")
    assert counts(120, tmp_path) == {}
    assert counts(121, tmp_path) == {}
    assert counts(0, tmp_path) == {}
    assert counts(120, tmp_path / "no-debugfs") == {}
