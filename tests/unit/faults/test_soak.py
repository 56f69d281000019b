# SPDX-License-Identifier: GPL-2.0-or-later
"""What a soak makes of its samples."""

from __future__ import annotations

import pytest

from multiroot.faults import soak
from multiroot.faults.fault import Outcome
from multiroot.faults.soak import Failed, Handed, Memory, Seen
from multiroot.units import MIB


def memory(*sizes: int) -> list[Memory]:
    return [Memory(10 * number, "old", size * MIB) for number, size in enumerate(sizes, 1)]


def test_quantiles() -> None:
    assert soak.spread([float(value) for value in range(1, 102)]) == {
        "p50": 51.0,
        "p95": 96.0,
        "p99": 100.0,
        "max": 101.0,
    }
    assert soak.spread([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
    assert soak.spread([]) == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


def test_memory_that_settles_after_a_while_has_not_grown() -> None:
    assert soak.growth(memory(50, 80, 100, 100, 100, 100, 100, 100, 100, 100))["growth"] == 0
    assert soak.growth([]) == {"first": 0, "last": 0, "growth": 0.0}


def test_memory_that_rises_all_the_time_has_grown() -> None:
    grown = soak.growth(memory(*range(100, 120)))
    assert grown["growth"] == pytest.approx(15 / 104, abs=0.001)
    assert grown["growth"] > soak.GROWTH_BOUND


def test_a_soak_held_if_nothing_failed_and_nothing_grew() -> None:
    handed = [Handed(1, "vm1", "new", 20_000_000, 30_000_000, 900_000_000)]
    assert Seen(handed, memory(*[100] * 10)).held
    assert not Seen([], memory(*[100] * 10)).held
    assert not Seen(handed, memory(*range(100, 120))).held
    assert not Seen(handed, [], [Failed(2, "vm1", "1 ticks missing")]).held
    assert not Seen(handed, [], [], [Outcome("garbage", "", "", problems=["1 taps"])]).held


def test_only_faults_that_end_no_guest_are_chosen_at_random() -> None:
    assert all(not fault.ends and not fault.strike for fault in soak.harmless())
    assert len(soak.harmless()) > 20
