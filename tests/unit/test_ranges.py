# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.ranges import Range, align_down, align_up, cut, intersect, merge, subtract

small = st.builds(Range, st.integers(0, 60), st.integers(1, 20))
lists = st.lists(small, max_size=6)


def addresses(ranges: list[Range] | tuple[Range, ...]) -> set[int]:
    return {address for item in ranges for address in range(item.base, item.end)}


@given(lists)
def test_merge_keeps_addresses_and_leaves_gaps_between(ranges: list[Range]) -> None:
    merged = merge(ranges)
    assert addresses(merged) == addresses(ranges)
    assert all(a.end < b.base for a, b in itertools.pairwise(merged))


@given(lists, st.lists(st.integers(0, 64)))
def test_cut_keeps_addresses_and_puts_a_border_at_each(ranges: list[Range], borders: list[int]) -> None:
    pieces = cut(ranges, borders)
    assert [at for piece in pieces for at in range(piece.base, piece.end)] == [
        at for item in ranges for at in range(item.base, item.end)
    ]
    assert not any(piece.base < border < piece.end for piece in pieces for border in borders)
    assert len(pieces) <= len(ranges) * (1 + len(set(borders)))


@given(lists, lists)
def test_subtract_and_intersect_are_those_of_sets(ranges: list[Range], others: list[Range]) -> None:
    assert addresses(subtract(ranges, others)) == addresses(ranges) - addresses(others)
    assert addresses(intersect(ranges, others)) == addresses(ranges) & addresses(others)


@given(small, small)
def test_overlap_means_a_common_address(one: Range, other: Range) -> None:
    common = addresses([one]) & addresses([other])
    assert one.overlaps(other) == bool(common)
    assert one.contains(other) == (common == addresses([other]))
    shared = one.intersection(other)
    assert addresses([shared] if shared else []) == common


@given(st.integers(0, 1 << 50), st.sampled_from([1, 4096, 1 << 21]))
def test_alignment(value: int, alignment: int) -> None:
    up, down = align_up(value, alignment), align_down(value, alignment)
    assert up % alignment == down % alignment == 0
    assert down <= value <= up < down + 2 * alignment


@pytest.mark.parametrize(("base", "size"), [(-1, 4), (0, 0), (0, -4), (1 << 52, 1)])
def test_impossible_ranges_are_refused(base: int, size: int) -> None:
    with pytest.raises(ValueError, match="not a physical range"):
        Range(base, size)
