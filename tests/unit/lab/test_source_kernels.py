# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels by name that are built of a source when somebody names them first."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot import arch
from multiroot.errors import BadRequestError
from multiroot.lab import kernel_config, lab, recipes, source_kernels
from multiroot.lab.lab import Options
from multiroot.phases import Phases
from multiroot.workbench import kernel_build
from multiroot.workbench.kernel_build import Order


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_each_looks_for_what_it_is_named_after() -> None:
    found = recipes.kernels().built
    assert {"6.12-kasan", "6.12-lockdep", "6.12-kcov"} <= {each.name for each in found}
    for recipe in found:
        assert set(recipe.debug) <= set(kernel_config.wishes().debug)
        assert all(word in recipe.name for word in recipe.debug)


def test_one_that_is_not_there_says_how_it_comes() -> None:
    lab.check_names(Options(kernel="6.12-kasan"))
    assert lab.is_path("6.12-kasan")
    with pytest.raises(BadRequestError, match=r"6\.12-kasan has not been built here yet") as refused:
        lab.own_kernels(Options(kernel="6.12-kasan"))
    assert "`multiroot kernel build linux-source-6.12 --debug kasan`" in refused.value.hint


def test_what_is_named_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Order] = []

    def build(order: Order, _phases: Phases) -> None:
        orders.append(order)
        image = source_kernels.folder(order.source, order.debug) / arch.current().kernel.built
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()

    monkeypatch.setattr(kernel_build, "build", build)
    names = ("6.12", "6.12-kasan", "./bzImage", "6.12-kasan")
    kernel_build.build_named(names, Phases("workstation"))
    kernel_build.build_named(names, Phases("workstation"))
    assert orders == [Order("linux-source-6.12", debug=("kasan",))]
    (source_kernels.folder("linux-source-6.12", ("kasan",)) / source_kernels.UNFINISHED).touch()
    kernel_build.build_named(("6.12-kasan",), Phases("workstation"))
    assert len(orders) == 2


def test_the_folder_is_that_of_kernel_build() -> None:
    """So what somebody has built by hand is what the name means."""
    assert source_kernels.folder("linux-source-6.12", ("kasan",)).name == "linux-source-6-12-kasan"
    assert source_kernels.folder("~/linux", ()) == source_kernels.folder(
        str(Path("~/linux").expanduser()), ()
    )
