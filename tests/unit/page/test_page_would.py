# SPDX-License-Identifier: GPL-2.0-or-later
"""What the page's buttons say they would do, and when they can be pressed."""

from __future__ import annotations

import pytest

from multiroot.page import would
from multiroot.page.actions import When, catalogue, possible
from multiroot.units import MIB
from multiroot.watch.facts import (
    CpuFacts,
    Facts,
    MemoryKind,
    RangeFacts,
    RootFacts,
    RootState,
    UpdateFacts,
    VmFacts,
)


def two_roots(owner: int = 1, state: RootState = RootState.ALIVE) -> Facts:
    gone = state in (RootState.ENDED, RootState.CRASHED)
    return Facts(
        cpus={"0": CpuFacts(1, 0), "2": CpuFacts(2, 0), "10": CpuFacts(2, 1)},
        memory={
            "0x100000": RangeFacts(0x100000, 512 * MIB, MemoryKind.SYSTEM, 1),
            "0x30000000": RangeFacts(0x30000000, 256 * MIB, MemoryKind.CARVE, 2),
            "0x80000000": RangeFacts(0x80000000, 1024 * MIB, MemoryKind.ARENA, 0),
        },
        roots={
            "1": RootFacts(1, "old", RootState.ALIVE, "6.12.9", devices=["00:01.0", "00:02.0"]),
            "2": RootFacts(2, "" if gone else "new", state, "7.0.1"),
        },
        vms={"vm1": VmFacts("running", owner, owner, 256 * MIB)},
        update=UpdateFacts(1, "joined"),
    )


@pytest.mark.parametrize(
    ("name", "owner", "wanted"),
    [
        (
            "hand-over",
            1,
            [
                "vm1: root 1 (Linux 6.12.9) -> root 2 (Linux 7.0.1); 256 MiB of RAM stay in place",
                "only device state would be sent",
            ],
        ),
        ("hand-over", 2, ["No VM is in root 1 (Linux 6.12.9): nothing would move."]),
        (
            "back",
            2,
            [
                "vm1: root 2 (Linux 7.0.1) -> root 1 (Linux 6.12.9); 256 MiB of RAM stay in place",
                "only device state would be sent",
            ],
        ),
        (
            "abort",
            2,
            [
                "vm1 would come back to root 1 (Linux 6.12.9)",
                "root 2 would end",
                "CPUs 2, 10 and 256 MiB of memory would go back to root 1 (Linux 6.12.9)",
            ],
        ),
        (
            "crash",
            2,
            ["the kernel of root 2 (Linux 7.0.1) would panic", "vm1 would be lost"],
        ),
        (
            "crash",
            1,
            [
                "the kernel of root 2 (Linux 7.0.1) would panic",
                "vm1 would go on in root 1 (Linux 6.12.9)",
            ],
        ),
        (
            "retire",
            1,
            [
                "vm1 would cross to root 2 (Linux 7.0.1) first",
                "root 1 (Linux 6.12.9) would end",
                "CPU 0 and 512 MiB of memory and 2 PCI functions would become those of root 2 (Linux 7.0.1)",
            ],
        ),
    ],
)
def test_what_would_be_done(name: str, owner: int, wanted: list[str]) -> None:
    assert would.lines(name, two_roots(owner)) == wanted


def test_after_a_crash_what_the_new_root_had_can_be_taken_back_before_all_else() -> None:
    facts = two_roots(state=RootState.CRASHED)
    assert [when for when in When if possible(when, facts)] == [When.BEGUN]
    assert would.lines("abort", facts) == [
        "CPUs 2, 10 and 256 MiB of memory would go back to root 1 (Linux 6.12.9)"
    ]


@pytest.mark.parametrize(
    ("state", "alone", "begun"),
    [("idle", True, False), ("carved", False, True), ("committed", False, False), ("retiring", False, False)],
)
def test_a_button_is_on_when_it_makes_sense(state: str, alone: bool, begun: bool) -> None:
    facts = two_roots(state=RootState.ENDED)
    facts.update.state = state
    assert possible(When.ALONE, facts) is alone
    assert possible(When.BEGUN, facts) is begun
    assert not possible(When.BESIDE, facts)


def test_every_button_that_has_no_dry_run_says_what_it_would_do() -> None:
    for action in catalogue("7.x", "lab").values():
        assert action.dry or would.lines(action.name, two_roots())
        assert action.dry or would.lines(action.name, Facts())
