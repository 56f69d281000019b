# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults, and what is judged of them; against real roots they run in tests/lab/faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError
from multiroot.failpoints import FailPoint
from multiroot.faults import catalogue, check, handoffs, table
from multiroot.faults.fault import Fate, Outcome
from multiroot.faults.ground import Sight
from multiroot.vm.ticks import Report, Stretch, Tick

FAULTS = catalogue.all_faults()
RUNS = Sight("running", 1, 5, 1)
NOTHING = Sight("", 0, 0, 0)
HANDED = Sight("handed", 2, 6, 0)
FAILED = Sight("failed", 1, 5, 0)
INCOMING = Sight("incoming", 1, 5, 1)


def test_no_two_faults_have_the_same_name() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_be_ordered_and_may_end_in_some_way(fault: handoffs.Fault) -> None:
    for aimed in fault.orders:
        aimed.order.checked()
    assert fault.fates
    assert fault.orders or fault.before


def test_every_fail_point_of_a_handoff_has_a_crash() -> None:
    crashes = {fault.name.removesuffix("/exit") for fault in FAULTS if fault.name.endswith("/exit")}
    assert {point for point in FailPoint if point.startswith(("giver.", "taker."))} <= crashes


def test_faults_are_chosen_by_name() -> None:
    assert {fault.name for fault in catalogue.chosen(["taker.owned/[er][xa]*"])} == {
        "taker.owned/exit",
        "taker.owned/raise",
    }
    assert 5 <= len(catalogue.chosen((), short=True)) <= 12
    with pytest.raises(BadRequestError, match="no fault called"):
        catalogue.chosen(["garbage", "no such"])


@pytest.mark.parametrize(
    ("old", "new", "fate"),
    [
        (RUNS, NOTHING, Fate.STAYS),
        (HANDED, RUNS, Fate.GOES),
        (RUNS, None, Fate.STAYS),
        (FAILED, NOTHING, Fate.LOST),
        (FAILED, None, Fate.LOST),
        (RUNS, INCOMING, None),
        (RUNS, RUNS, None),
        (Sight("frozen", 1, 5, 1), NOTHING, None),
        (HANDED, NOTHING, None),
        (Sight("running", 1, 5, 0), NOTHING, None),
        (replace(HANDED, vmms=1), RUNS, None),
    ],
)
def test_a_fate_is_settled_when_one_copy_is_left(old: Sight, new: Sight | None, fate: Fate | None) -> None:
    sights = {"old": old} if new is None else {"old": old, "new": new}
    assert check.fate_of(sights) is fate


def ticks(*counters: int, bad: int = 0, boot: str = "a") -> Stretch:
    last = Report(counters[-1], boot, 0, 0, 1, bad, 0)
    found = [Tick(counter, counter) for counter in counters[:-1]]
    return Stretch(b"", 0, (*found, Tick(counters[-1], counters[-1], last)), b"")


@pytest.mark.parametrize(
    ("pieces", "problems"),
    [
        ([ticks(1, 2), ticks(3, 4)], []),
        ([ticks(1, 2), ticks(2, 3)], ["1 ticks repeated"]),
        ([ticks(1, 2), ticks(4, 5)], ["1 ticks missing"]),
        ([ticks(1, 2), ticks(3, 4, bad=7)], ["7 bytes of memory bad"]),
        ([ticks(1, 2), ticks(3, 4, boot="b")], ["1 boots too many"]),
        ([Stretch()], ["the guest did not tick"]),
    ],
)
def test_a_guest_that_lost_something_is_seen(pieces: list[Stretch], problems: list[str]) -> None:
    assert check.guest_problems(pieces) == problems


def test_differences_name_what_is_missing_and_what_is_new() -> None:
    assert check.differences({"taps": "1", "cpus": "0-1"}, {"taps": "2", "more": "1"}) == [
        "cpus: None, before 0-1",
        "more: 1, before None",
        "taps: 2, before 1",
    ]


def test_newer_outcomes_replace_older_ones_in_the_page(tmp_path: Path) -> None:
    page, data = tmp_path / "faults.md", tmp_path / "faults.json"
    page.write_text(f"before\n{table.BEGIN}\nold table\n{table.END}\nafter\n")
    first, second = FAULTS[:2]
    bad = Outcome(second.name, second.step, "a | b", problems=["1 taps"], versions={"kernel": "6.12"})
    good = Outcome(first.name, first.step, first.what, Fate.STAYS.value, 1.25, date="2026-01-01")
    table.write(data, [bad], FAULTS)
    kept = table.write(data, [good, Outcome("no fault any more", "", "")], FAULTS)
    assert list(kept) == [first.name, second.name]
    assert table.read(data) == kept
    table.update_page(page, list(kept.values()), 5)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old table" not in text
    assert "1 of 2 held. 3 more were not run. Seen with kernel 6.12." in text
    assert f"| {first.step} | {first.what} | runs in the old root | 1.2 | 2026-01-01 |" in text
    assert "| a \\| b | **not held**: 1 taps | 0.0 |  |" in text
    page.write_text("no place")
    with pytest.raises(BadRequestError, match="no place"):
        table.update_page(page, [], 0)
