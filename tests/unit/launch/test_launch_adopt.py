# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that another root left is zeroed, no faster than VMs beside it can bear."""

from __future__ import annotations

from typing import Any, cast

import pytest

from multiroot.device.uapi import MemoryAction
from multiroot.launch import adopt
from multiroot.ranges import Range
from multiroot.units import MIB


class Memory:
    """The module's device on a machine that zeroes so many bytes/s, and the time there."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.now = 0.0
        self.zeroed: list[tuple[int, int]] = []
        self.waited: list[float] = []

    def memory(self, action: MemoryAction, base: int, size: int) -> int:
        assert action == MemoryAction.ZERO
        self.zeroed.append((base, size))
        self.now += size / self.rate
        return 0

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    def zero(self, piece: Range) -> None:
        adopt.zero(cast(Any, self), piece, self.wait, lambda: self.now)


PIECE = Range(64 * MIB, 40 * MIB)


def test_a_slow_memory_is_zeroed_as_fast_as_it_can() -> None:
    memory = Memory(adopt.ZERO_RATE // 2)
    memory.zero(PIECE)
    assert memory.zeroed == [(64 * MIB, 16 * MIB), (80 * MIB, 16 * MIB), (96 * MIB, 8 * MIB)]
    assert memory.waited == []


def test_a_memory_that_is_a_little_faster_than_the_rate_keeps_it() -> None:
    memory = Memory(adopt.ZERO_RATE * 3 // 2)
    memory.zero(PIECE)
    assert len(memory.waited) == 3
    assert memory.now == pytest.approx(PIECE.size / adopt.ZERO_RATE)


def test_a_fast_memory_is_left_to_others_for_half_of_the_time() -> None:
    memory = Memory(adopt.ZERO_RATE * 8)
    memory.zero(PIECE)
    assert len(memory.waited) == 3
    assert memory.now == pytest.approx(PIECE.size / (adopt.ZERO_RATE * 4))
