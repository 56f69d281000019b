# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a leak from one generation to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiroot.demo.generations import Inventory, breakdown, leaks
from multiroot.phases import Phase

FIRST = Inventory(1, "6.12", "0-3", (0, 1, 2, 3), 3 << 30, 5, 40, 1, ("vm1",))
SECOND = replace(FIRST, root=2, kernel="6.1", hardware_ids=(2, 3, 0, 1), memory=2 << 30)


def test_a_generation_like_the_one_before_leaks_nothing() -> None:
    assert leaks(FIRST, [SECOND, replace(SECOND, root=3, hardware_ids=(1, 3, 0, 2))]) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"memory": 1 << 30}, "memory"),
        ({"hardware_ids": (2, 3, 0)}, "CPUs"),
        ({"devices": 4}, "devices"),
        ({"extents": 2}, "extents"),
        ({"interrupts": 41}, "interrupts"),
        ({"vms": ()}, "VMs"),
    ],
)
def test_anything_less_or_left_over_is_named(change: dict[str, object], says: str) -> None:
    (problem,) = leaks(FIRST, [SECOND, replace(SECOND, **change)])  # type: ignore[arg-type]
    assert problem.startswith(says)


def test_a_cpu_lost_in_the_very_first_update_shows() -> None:
    assert leaks(FIRST, [replace(SECOND, hardware_ids=(2, 3, 1))])


def test_steps_that_come_several_times_are_added_up() -> None:
    steps = [Phase("adopt CPU", "root 2", 0, 250_000_000), Phase("adopt CPU", "root 2", 0, 500_000_000)]
    assert breakdown([*steps, Phase("join", "root 1", 0)]) == {"adopt CPU": 0.75}
