# SPDX-License-Identifier: GPL-2.0-or-later
"""What the workstation has: here the counter that an emulated machine shares with it."""

from __future__ import annotations

import time

import pytest

from multiroot.lab import host

KHZ = 2_300_000


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter with that frequency. Of the readings of the time some take long."""
    now = 0
    takes = [100, 7_000_000, 50, 2_000_000, 900]

    def passed(ns: int) -> int:
        nonlocal now
        now += ns
        return now

    def read(_: int) -> int:
        takes.append(takes.pop(0))
        return passed(takes[-1])

    monkeypatch.setattr(time, "clock_gettime_ns", read)
    monkeypatch.setattr(time, "sleep", lambda seconds: passed(round(seconds * 1e9)))
    monkeypatch.setattr(host, "tsc", lambda: passed(10) * KHZ // 1_000_000)


def test_the_frequency_is_measured_where_nothing_came_between(clocks: None) -> None:
    assert host.tsc_khz() == pytest.approx(KHZ, rel=1e-5)


def test_this_computers_is_measured_alike_twice() -> None:
    assert host.tsc_khz() == pytest.approx(host.tsc_khz(), rel=1e-3)
