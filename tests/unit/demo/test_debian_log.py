# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log of a Debian guest is judged by, and how long it stood still."""

from __future__ import annotations

import pytest

from multiroot.demo.debian import Report, blackouts_in, complaints_in, judge_clock
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase

FINE = "[    1.0000001] EXT4-fs (vda1): mounted filesystem\n[    2.000000] random: crng init done\n"


def test_trouble_of_the_kernel_and_of_its_disk() -> None:
    assert complaints_in(FINE) == []
    bad = FINE + (
        "[   10.000000] INFO: task fio:99 blocked for more than 120 seconds.\n"
        "[   20.000000] blk_update_request: I/O error, dev vda, sector 8\n"
    )
    hung, disk = complaints_in(bad)
    assert hung.startswith("hung task in deb at 10.000000 s: INFO: task fio:99")
    assert "sector 8" in disk


def test_a_blackout_is_from_the_first_phase_of_it_to_the_last() -> None:
    def phase(name: str, start_ms: int, took_ms: int, vm: str = "deb", blackout: bool = True) -> Phase:
        return Phase(name, "new root", start_ms * 10**6, took_ms * 10**6, blackout, attrs={"vm": vm})

    of_another = phase("save", 0, 900, vm="canary")
    seen = [
        of_another,
        phase("prepare", 10, 50, blackout=False),
        phase("resume", 130, 5),
        phase("save", 100, 20),
    ]
    assert blackouts_in(seen) == [35.0]
    assert blackouts_in([of_another]) == []


def test_what_was_away_in_updates_is_told_in_its_order() -> None:
    phases = [
        Phase(PhaseName.UPLINK_AWAY, "root 2", 0, 2_440_000_000),
        Phase(PhaseName.ADOPT_DEVICES, "root 2", 0, 1_000_000_000),
        Phase(PhaseName.DISKS_AWAY, "root 2", 0, 2_700_000_000),
    ]
    assert Report(1.0, (), (), tuple(phases)).away_s == (
        ("the guests' uplink was away", 2.4),
        ("the VMs' disks were away", 2.7),
    )


@pytest.mark.parametrize(
    ("off_ns", "held"), [("-310", True), ("19000000", True), ("-51000000", False), ("51000000", False)]
)
def test_a_guest_that_missed_a_blackout_has_not_its_roots_clock(off_ns: str, held: bool) -> None:
    (check,) = judge_clock(off_ns)
    assert check.held is held


def test_where_kvm_shows_no_clock_nothing_is_claimed() -> None:
    assert judge_clock("") == []
