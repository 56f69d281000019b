# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from multiroot.arena.allocator import Extent, free_extents, plan
from multiroot.arena.layout import METADATA_SIZE
from multiroot.errors import BadRequestError, ConflictError
from multiroot.lab.layout import arena_size
from multiroot.units import HUGE_PAGE, MIB, TIB

TOTAL = METADATA_SIZE + 32 * HUGE_PAGE


class Allocations(RuleBasedStateMachine):
    """Any order of allocating and freeing."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[Extent] = []

    @rule(units=st.integers(1, 12))
    def allocate(self, units: int) -> None:
        size = units * HUGE_PAGE
        largest = max((gap.size for gap in free_extents(self.used, TOTAL)), default=0)
        if largest < size:
            with pytest.raises(ConflictError):
                plan(self.used, size, TOTAL)
            return
        extent = plan(self.used, size, TOTAL)
        assert extent.size == size
        self.used.append(extent)

    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        if self.used:
            self.used.remove(data.draw(st.sampled_from(self.used)))

    @invariant()
    def nothing_overlaps(self) -> None:
        ordered = sorted(self.used)
        assert all(a.end <= b.offset for a, b in pairwise(ordered))
        assert all(e.offset >= METADATA_SIZE and e.end <= TOTAL for e in ordered)
        assert all(e.offset % HUGE_PAGE == 0 for e in ordered)

    @invariant()
    def free_and_used_make_the_whole(self) -> None:
        gaps = free_extents(self.used, TOTAL)
        assert sum(e.size for e in [*gaps, *self.used]) == TOTAL - METADATA_SIZE

    @invariant()
    def neighbouring_gaps_are_one(self) -> None:
        gaps = free_extents(self.used, TOTAL)
        assert all(a.end < b.offset for a, b in pairwise(gaps))


TestAllocations = Allocations.TestCase
TestAllocations.settings = settings(max_examples=50, deadline=None)


def test_best_fit_leaves_the_large_gap_whole() -> None:
    used = [Extent(METADATA_SIZE + 2 * HUGE_PAGE, HUGE_PAGE)]  # gaps of 2 and 29
    assert plan(used, 2 * HUGE_PAGE, TOTAL).offset == METADATA_SIZE
    assert plan(used, 3 * HUGE_PAGE, TOTAL).offset == METADATA_SIZE + 3 * HUGE_PAGE


def test_refusal_names_the_largest_gap() -> None:
    used = [Extent(METADATA_SIZE + 20 * HUGE_PAGE, 2 * HUGE_PAGE)]
    with pytest.raises(ConflictError, match="no free extent of 60 MiB") as refused:
        plan(used, 30 * HUGE_PAGE, TOTAL)
    assert refused.value.hint == (
        "largest free: 40 MiB of 60 MiB in all; a VM that ends gives its memory back; a lab has to begin "
        "anew for more, with its other options, and its VMs end with it: "
        "`multiroot lab down && multiroot lab up --vms 1 --vm-memory 64M`"
    )


def test_a_lab_that_begins_anew_as_told_has_room_for_what_was_there_and_what_was_refused() -> None:
    used = [Extent(METADATA_SIZE, 24 * HUGE_PAGE)]
    with pytest.raises(ConflictError) as refused:
        plan(used, 16 * HUGE_PAGE, TOTAL)
    (size,) = re.findall(r"--vm-memory (\d+)M", refused.value.hint)
    larger = arena_size(1, int(size) * MIB, slack=0)
    assert plan(used, 16 * HUGE_PAGE, larger).offset == 24 * HUGE_PAGE + METADATA_SIZE
    assert larger > TOTAL


def test_nobody_is_told_to_end_a_lab_for_what_no_computer_has() -> None:
    with pytest.raises(ConflictError, match="no free extent of 10 TiB") as refused:
        plan([], 10 * TIB, TOTAL)
    assert refused.value.hint == "largest free: 64 MiB of 64 MiB in all; a VM that ends gives its memory back"


@pytest.mark.parametrize(
    ("size", "nearest"),
    [(HUGE_PAGE + 1, "2 MiB"), (3 * HUGE_PAGE - 4096, "6 MiB"), (1, "2 MiB"), (0, "2 MiB"), (-5, "2 MiB")],
)
def test_sizes_that_are_no_multiple_are_refused(size: int, nearest: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        plan([], size, TOTAL)
    assert refused.value.hint == f"nearest that works: {nearest}"


@given(st.sampled_from([0, METADATA_SIZE - 1, TOTAL - HUGE_PAGE + 1]))
def test_extents_that_leave_the_arena_are_noticed(offset: int) -> None:
    with pytest.raises(ConflictError, match="overlaps another or leaves"):
        free_extents([Extent(offset, HUGE_PAGE)], TOTAL)


def test_overlapping_extents_are_noticed() -> None:
    with pytest.raises(ConflictError, match="overlaps"):
        free_extents(
            [Extent(METADATA_SIZE, 2 * HUGE_PAGE), Extent(METADATA_SIZE + HUGE_PAGE, HUGE_PAGE)], TOTAL
        )
