# SPDX-License-Identifier: GPL-2.0-or-later
"""The difference of two clocks comes from the try in which they were read closest together."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from multiroot.clocks import Difference, Mapped, boot_clock, difference, raw_clock, set_wall_clock


def readings(*values: int) -> Callable[[], int]:
    """A clock that shows these, one after the other."""
    left = iter(values)
    return lambda: next(left)


def test_the_tightest_try_counts() -> None:
    clock = readings(1_000, 2_005, 3_000)
    other = readings(0, 100, 1_000, 1_010, 2_000, 2_050)
    assert difference(clock, other, tries=3) == Difference(ns=1_000, error_ns=5)


def test_a_stamp_of_the_other_clock_is_mapped() -> None:
    mapped = Mapped(lambda: 5_000, lambda: 2_000)
    assert mapped.offset() == 3_000
    assert mapped(100) == 3_100


def test_the_kernels_clocks_are_the_ones_meant() -> None:
    ahead = 10**18
    for mapped, number in ((boot_clock, time.CLOCK_BOOTTIME), (raw_clock, time.CLOCK_MONOTONIC_RAW)):
        before = time.clock_gettime_ns(number)
        offset = mapped(lambda number=number: time.clock_gettime_ns(number) + ahead).offset()  # type: ignore[misc]
        assert abs(offset - ahead) <= time.clock_gettime_ns(number) - before


def test_a_wall_clock_that_was_set_late_is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time whoever sets it has no CPU for two seconds in between."""
    late = [2_000_000_000, 0]
    set_to: list[int] = []

    def settime(clock: int, ns: int) -> None:
        assert clock == time.CLOCK_REALTIME
        set_to.append(ns - late.pop(0))

    monkeypatch.setattr(time, "clock_settime_ns", settime)
    monkeypatch.setattr(time, "time_ns", lambda: set_to[-1])
    set_wall_clock(lambda: 5_000_000_000, 7_000_000_000)
    assert (set_to, late) == ([10_000_000_000, 12_000_000_000], [])
