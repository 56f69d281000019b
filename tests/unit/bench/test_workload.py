# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests of a bench are told, and how long they are watched for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.workload import enough_ticks, words


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ""),
        ({"period_ms": 10}, ""),
        ({"dirty": 40}, "ticker.dirty=40"),
        ({"period_ms": 100, "dirty": 40}, "ticker.period=100 ticker.dirty=40"),
    ],
)
def test_only_what_is_not_usual_is_said(told: dict[str, int], expected: str) -> None:
    assert words(**told) == expected


@given(st.integers(1, 10_000), st.integers(0, 500))
def test_each_guest_is_watched_for_more_than_a_second(period_ms: int, dirty: int) -> None:
    count = enough_ticks(words(period_ms=period_ms, dirty=dirty))
    assert count >= 12
    assert count * period_ms > 1000
