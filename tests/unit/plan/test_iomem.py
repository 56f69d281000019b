# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.plan.iomem import Resource, owners, parse, render
from multiroot.ranges import Range

SAMPLE = """\
00001000-0009fbff : System RAM
  00010000-0003ffff : Reserved
000f0000-000fffff : System ROM
00100000-7fffffff : System RAM
  01000000-01ffffff : Kernel code
100000000-117ffffff : Persistent Memory (legacy)
  100000000-117ffffff : namespace0.0
    100200000-117ffffff : dax0.0
118000000-157ffffff : Reserved
"""

names = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=20)
leaves = st.builds(
    Resource, st.builds(Range, st.integers(0, 1 << 40), st.integers(1, 1 << 40)), names, st.just(())
)
resources = st.recursive(
    leaves,
    lambda below: st.builds(
        Resource,
        st.builds(Range, st.integers(1, 1 << 40), st.integers(1, 1 << 40)),
        names,
        st.lists(below, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


@given(st.lists(resources, max_size=4).map(tuple))
def test_what_is_rendered_is_parsed_back(tree: tuple[Resource, ...]) -> None:
    if [item.range for top in tree for item in top.walk()].count(Range(0, 1)) == sum(
        1 for top in tree for _ in top.walk()
    ):
        return  # all zeros is how the kernel hides addresses
    assert parse(render(tree)) == tree


def test_a_real_one() -> None:
    tree = parse(SAMPLE)
    assert render(tree) == SAMPLE
    assert [item.name for item in tree if item.is_ram] == ["System RAM"] * 2
    assert tree[3].is_persistent
    assert tree[4].is_reserved
    assert [item.name for item in tree[3].walk()][1:] == ["namespace0.0", "dax0.0"]


def test_owners_are_the_innermost() -> None:
    tree = parse(SAMPLE)
    assert [item.name for item in owners(tree, Range(0x1800000, 0x1000))] == ["Kernel code"]
    assert [item.name for item in owners(tree, Range(0x20000, 0x100000))] == [
        "Reserved",
        "System ROM",
        "System RAM",
    ]
    assert owners(tree, Range(0xC0000000, 0x1000)) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n", "run as root"),
        ("nonsense\n", "malformed"),
        ("00002000-00001000 : backwards\n", "malformed"),
        ("00001000-00001fff : a\n      00001000-00001fff : b\n", "too deep"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(text)
    assert message in str(caught.value)


@given(st.text(st.sampled_from("0123456789abcdef-: \nSystem RAM"), max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        tree = parse(text)
    except BadRequestError:
        return
    assert parse(render(tree)) == tree


@pytest.mark.parametrize(
    "text",
    [
        "0-ffffffffffffffff : Everything",
        "10000000000000-10000000000fff : Beyond",
        "".join(f"{'  ' * depth}0-ff : x\n" for depth in range(3000)),
    ],
)
def test_what_no_machine_has_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="/proc/iomem"):
        parse(text)
