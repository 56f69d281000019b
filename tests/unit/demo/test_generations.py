# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a leak from one generation to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiroot.demo.demo_report import GuestSeen
from multiroot.demo.device import Frames
from multiroot.demo.generations import CardSeen, Generation, Inventory, breakdown, broken, leaks
from multiroot.phases import Phase
from multiroot.vm.ticks import ClocksLost

FIRST = Inventory(1, "6.12", "0-3", (0, 1, 2, 3), 3 << 30, 5, 40, 1, ("vm1",))
GUEST = GuestSeen("a", "a", 200, 900, 0, 0, 4096, 0, 30_000_000, ClocksLost(20_000_000, 20_000_000))
CARD = CardSeen(Frames(1, 900, 900, 0, 0, 0), sent=850, resets=0, faults=0, driver_lines=0, interrupts=70)
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


def generation(card: CardSeen) -> Generation:
    return Generation(2, 60.0, {}, SECOND, GUEST, resets=0, wall_off=0.0, drift=0.0, card=card)


def test_a_card_at_work_all_the_time_is_not_broken() -> None:
    assert broken(generation(CARD)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": Frames(1, 900, 899, 1, 0, 0)}, "frames are lost: 1"),
        ({"frames": Frames(1, 900, 901, 0, 1, 0)}, "frames came twice: 1"),
        ({"frames": Frames(1, 900, 890, 0, 0, 0)}, "frames the account does not cover: 10"),
        ({"sent": 910}, "frames sent since the update that never came: 10"),
        ({"resets": 1}, "the card was reset: 1"),
        ({"faults": 3}, "DMA was blocked: 3"),
        ({"driver_lines": 2}, "lines that the guest's driver logged: 2"),
        ({"interrupts": 0}, "no interrupt of the card in the new root: 1"),
    ],
)
def test_what_a_card_lost_is_named(change: dict[str, object], says: str) -> None:
    assert says in broken(generation(replace(CARD, **change)))  # type: ignore[arg-type]


def test_clocks_that_lost_time_are_told_with_how_much() -> None:
    guest = replace(GUEST, clocks_lost=ClocksLost(20_000_000, 2_500_000_000))
    assert broken(replace(generation(CARD), guest=guest)) == [
        "the guest's clocks are wrong: monotonic 20.0 ms behind, wall clock 2500.0 ms;"
        " the guest stood 30.0 ms"
    ]
