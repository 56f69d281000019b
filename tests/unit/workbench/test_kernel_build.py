# SPDX-License-Identifier: GPL-2.0-or-later
"""Building a kernel: what is configured and compiled of a tree, and that nothing is written to it.

The tree is a small one of this test's, with the targets of a kernel's that are used.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import built_in, kernel_config
from multiroot.lab.source_kernels import UNFINISHED
from multiroot.phases import Phases
from multiroot.workbench import kernel_build
from multiroot.workbench.kernel_build import Made, Order
from multiroot.workbench.link_tree import link_tree

IMAGE = "arch/x86/boot/bzImage"
_TOP = f"""
x86_64_defconfig:
	echo CONFIG_LATER=y >$(O)/.config
olddefconfig:
kernelrelease:
	@echo 6.12.1-mine
bzImage:
	mkdir -p $(O)/{Path(IMAGE).parent}
	cat drivers/Makefile >$(O)/{IMAGE}
modules:
	touch $(O)/modules.order
"""
# -m -O OUT BASE FRAGMENT...
_MERGE = 'shift 2; out=$1; shift; cat "$@" >"$out/.merged"; mv "$out/.merged" "$out/.config"\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel_build, "check_tools", lambda: None)
    source = tmp_path / "linux"
    files = {
        "Makefile": _TOP,
        "Kconfig": "",
        "scripts/kconfig/merge_config.sh": _MERGE,
        "drivers/Makefile": "obj-y += pci/\n",
        "drivers/Kconfig": "endmenu\n",
        "drivers/pci/Makefile": "obj-y += pci.o\n",
    }
    for place, text in files.items():
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_text(text)
    return source


def built(order: Order) -> Made:
    return kernel_build.build(order, Phases("workstation"))


def settings(out: Path) -> dict[str, str]:
    return kernel_config.parse((out / ".config").read_text())


def test_a_kernel_is_built_beside_its_tree(tree: Path, tmp_path: Path) -> None:
    before = sorted(tree.rglob("*"))
    made = built(Order(str(tree), tmp_path / "o"))
    assert (made.out, made.release, made.lacks) == (tmp_path / "o", "6.12.1-mine", ())
    assert (made.out / IMAGE).read_text() == "obj-y += pci/\n"
    assert (made.out / "modules.order").exists()
    assert settings(made.out)["MODULES"] == "y"
    assert sorted(tree.rglob("*")) == before


def test_a_build_that_failed_is_not_finished(tree: Path, tmp_path: Path) -> None:
    (tree / "Makefile").write_text(
        _TOP.replace("\ttouch $(O)/modules.order", "\t@echo 'x: error: no'; exit 2")
    )
    with pytest.raises(CommandError, match="the kernel does not compile: x: error: no"):
        built(Order(str(tree), tmp_path / "o"))
    assert (tmp_path / "o" / IMAGE).exists()
    assert (tmp_path / "o" / UNFINISHED).exists()
    (tree / "Makefile").write_text(_TOP)
    assert not (built(Order(str(tree), tmp_path / "o")).out / UNFINISHED).exists()


def test_a_kernel_without_modules_has_ours_among_its_drivers(tree: Path, tmp_path: Path) -> None:
    before = sorted(tree.rglob("*"))
    order = Order(str(tree), tmp_path / "o", no_modules=True)
    made = built(order)
    assert sorted(tree.rglob("*")) == before
    assert (made.out / IMAGE).read_text() == "obj-y += pci/\nobj-$(CONFIG_MULTIROOT) += multiroot/\n"
    assert not (made.out / "modules.order").exists()
    assert (settings(made.out)["MODULES"], settings(made.out)["MULTIROOT"]) == ("n", "y")
    ours = made.out / "multiroot-tree/drivers"
    assert (ours / "Kconfig").read_text().endswith('source "drivers/multiroot/Kconfig"\n')
    assert (ours / "pci").readlink() == tree / "drivers/pci"
    for name in ("Kbuild", "Kconfig", "core/main.c", "uapi/multiroot.h"):
        assert (ours / "multiroot" / name).read_bytes() == (built_in.sources() / name).read_bytes()
    built_in.check(made.out)


def test_what_has_not_changed_is_not_written_again(tree: Path, tmp_path: Path) -> None:
    order = Order(str(tree), tmp_path / "o", no_modules=True)
    drivers = built(order).out / "multiroot-tree/drivers"
    names = ("Makefile", "Kconfig", "multiroot/core/main.c")
    for name in names:
        os.utime(drivers / name, (1, 1))
    built(order)
    assert [(drivers / name).stat().st_mtime for name in names] == [1, 1, 1]
    (tree / "drivers/Makefile").write_text("obj-y += usb/\n")
    built(order)
    assert (drivers / "Makefile").read_text().startswith("obj-y += usb/\n")


def test_a_kernel_that_was_only_configured_has_nothing_built_in(tree: Path, tmp_path: Path) -> None:
    order = Order(str(tree), tmp_path / "o", no_modules=True)
    built(replace(order, configure_only=True))
    with pytest.raises(BadRequestError, match="without multiroot's modules in it"):
        built_in.check(tmp_path / "o")


def test_a_tree_by_links_follows_its_source(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("a/x", "a/own", "b/y", "c"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    link_tree(source, target, (Path("a/own"),))
    assert not (target / "a").is_symlink()
    assert sorted(each.name for each in (target / "a").iterdir()) == ["x"]
    assert (target / "b/y").read_text() == "b/y"
    (source / "c").unlink()
    (source / "d").write_text("d")
    (target / "a/own").write_text("mine")
    link_tree(source, target, (Path("a/own"),))
    assert sorted(each.name for each in target.iterdir()) == ["a", "b", "d"]
    assert (target / "a/own").read_text() == "mine"
