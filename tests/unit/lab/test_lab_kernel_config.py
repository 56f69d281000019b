# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernels have to be built with: the project's own wishes, and any configuration compared with them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from multiroot.errors import BadRequestError
from multiroot.lab.kernel_config import OFF, Feature, Option, Wishes, check, fragment, parse, wishes

ARENA = {
    "arena": Feature(what="x", needed=True, options=(Option(name="DEV_DAX", value="m", without="no arena"),))
}
values = st.sampled_from(["y", "m", "n"])


@pytest.mark.parametrize(
    ("wanted", "is_", "met"),
    [
        ("y", "y", True),
        ("y", "m", False),
        ("m", "y", True),
        ("m", "m", True),
        ("m", "n", False),
        ("n", "n", True),
        ("n", "y", False),
        ("n", "m", False),
        ("y", '"text"', False),
        (64, "64", True),
        (64, "512", True),
        (64, "2", False),
        (64, "n", False),
    ],
)
def test_what_meets_what(wanted: Any, is_: str, met: bool) -> None:
    assert Option(name="X", value=wanted, without="w").met(is_) is met


def test_a_configuration_is_read() -> None:
    text = '#\n# Linux/x86 6.1\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D="a=b"\n'
    assert parse(text) == {"A": "y", "B": "m", "C": "n", "D": '"a=b"'}
    with pytest.raises(BadRequestError, match="is no kernel configuration"):
        parse("hello\n")


def test_what_is_missing_says_what_it_costs() -> None:
    (lack,) = check({"A": "y"}, ARENA)
    assert str(lack) == "CONFIG_DEV_DAX=m is n: no arena"
    assert lack.needed
    assert check({"DEV_DAX": "y"}, ARENA) == []


@pytest.mark.parametrize(
    ("config", "slowness"),
    [
        ({}, 1),
        ({"KASAN": "y"}, 3),
        ({"KASAN": "n", "PROVE_LOCKING": "y"}, 2),
        ({"KASAN": "y", "KCOV": "y"}, 6),
    ],
)
def test_kernels_that_look_for_bugs_in_themselves_may_take_longer(
    config: dict[str, str], slowness: float
) -> None:
    assert wishes().slowness(config) == slowness


def test_every_real_time_kernel_is_told_why() -> None:
    """CONFIG_PREEMPT_RT rules out huge pages, and so DEV_DAX (mm/Kconfig). It can be a root all the same."""
    config = parse(fragment(wishes().feature))
    assert check(config, wishes().feature) == []
    lacks = check(config | {"PREEMPT_RT": "y", "DEV_DAX": OFF, "TRANSPARENT_HUGEPAGE": OFF}, wishes().feature)
    assert [each.option.name for each in lacks] == ["DEV_DAX", "TRANSPARENT_HUGEPAGE"]
    assert "as in every PREEMPT_RT kernel: the arena is /dev/multiroot-arena" in str(lacks[0])
    assert not any(each.needed for each in lacks)


def test_a_small_kernel_still_has_all_that_is_wished() -> None:
    merged = parse(fragment(wishes().feature, wishes().small))
    assert check(merged, wishes().feature) == []
    assert merged["SOUND"] == OFF
    assert "SOUND" not in parse(fragment(wishes().chosen(["root"])))


def test_a_kernel_that_loads_no_modules_has_all_built_in() -> None:
    merged = parse(fragment(wishes().feature, wishes().small, built_in=True))
    assert "m" not in merged.values()
    assert (merged["MODULES"], merged["MULTIROOT"]) == (OFF, "y")
    assert check(merged, wishes().feature) == []
    (lack,) = check(merged | {"MULTIROOT": OFF}, wishes().feature)
    assert (lack.option.name, lack.needed) == ("MODULES", True)


@given(st.dictionaries(st.text("ABC_", min_size=1, max_size=3), values, min_size=1, max_size=6))
def test_a_fragment_asks_for_what_it_is_made_of(options: dict[str, Any]) -> None:
    """Whatever is wished, a kernel that got the fragment lacks nothing."""
    features = {
        "f": Feature(
            what="x", options=tuple(Option(name=k, value=v, without="w") for k, v in options.items())
        )
    }
    assert check(parse(fragment(features)), features) == []


def test_features_are_chosen_by_name() -> None:
    assert list(wishes().chosen(["arena", "root"])) == ["root", "arena"]
    with pytest.raises(BadRequestError, match=r"no feature called 'rooot' .*there is root"):
        wishes().chosen(["rooot"])


def test_one_option_is_not_wished_both_ways() -> None:
    on = {"what": "x", "options": [{"name": "A", "value": "m", "without": "w"}]}
    off = {"what": "x", "options": [{"name": "A", "value": "n", "without": "w"}]}
    with pytest.raises(ValidationError, match="A is wanted both on and off"):
        Wishes.model_validate({"feature": {"one": on, "other": off}})
    with pytest.raises(ValidationError):
        Wishes.model_validate({"feature": {"one": {"what": "x", "options": []}}})


@pytest.mark.parametrize("name", list(wishes().debug))
def test_a_debug_kernel_is_what_was_asked_for_or_nothing(name: str) -> None:
    chosen = wishes().debugging([name])
    asked = parse(fragment(chosen))
    assert check(asked, chosen) == []
    lacks = check({}, chosen)
    assert lacks
    assert all(each.needed for each in lacks)


def test_a_way_of_debugging_that_there_is_not() -> None:
    with pytest.raises(BadRequestError, match="no way of debugging called 'kmsan'") as refused:
        wishes().debugging(["kmsan"])
    assert "kasan, lockdep, kcov" in refused.value.hint
