# SPDX-License-Identifier: GPL-2.0-or-later
"""How wrong a root's clocks are, when reading them takes time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from multiroot.demo.clocks import Clocks, outside, read
from multiroot.lab.execution import Result


@pytest.mark.parametrize(("value", "off"), [(2.0, 0.0), (4.0, 0.0), (1.5, 0.5), (5.25, 1.25)])
def test_only_what_is_outside_counts(value: float, off: float) -> None:
    assert outside(value, 2.0, 4.0) == off


@pytest.mark.parametrize(("uptime", "drift"), [(110.0, 0.0), (107.0, 1.0), (114.0, 2.0)])
def test_a_clock_drifts_beyond_what_both_readings_took(uptime: float, drift: float) -> None:
    first = Clocks(early=10.0, late=11.0, uptime=100.0, wall=0.0)
    assert first.drift(Clocks(early=19.0, late=22.0, uptime=uptime, wall=0.0)) == drift


@pytest.mark.parametrize("off", [0.0, 3600.0, -3600.0])
def test_a_wrong_wall_clock_is_seen(off: float) -> None:
    def root(argv: Sequence[str]) -> Result:
        assert argv[0] == "sh"
        return Result(0, f"{time.time() + off:.9f}\n12.34\n", "")

    seen = read(root)
    assert seen.wall == pytest.approx(off, abs=1.0)
    assert seen.uptime == 12.34


@pytest.mark.parametrize(("wall", "drift"), [(-2.0, 0.0), (-5.5, 2.5), (2.5, 1.5)])
def test_a_wall_clock_drifts_from_where_the_first_root_began(wall: float, drift: float) -> None:
    """Between two and three seconds behind at first; the second reading took three."""
    first = Clocks(early=10.0, late=11.0, uptime=100.0, wall=-2.0)
    second = Clocks(early=19.0, late=22.0, uptime=110.0, wall=wall)
    assert first.wall_drift(second) == drift
