# SPDX-License-Identifier: GPL-2.0-or-later
"""What a soak makes of its samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.errors import MultirootError
from multiroot.faults import soak
from multiroot.faults.fault import Outcome
from multiroot.faults.soak import Failed, Growth, Handed, Memory, Seen, Soak
from multiroot.rpc.v1.coordinator_pb2 import HandoffResult
from multiroot.units import MIB
from multiroot.vm.ticks import Stretch


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


def test_memory_that_settles_while_an_agent_warms_up_has_not_grown() -> None:
    grown = soak.growth(memory(*range(80, 100), *[100] * 20))
    assert (grown.slope, grown.error, grown.verdict) == (0, 0, "flat")
    assert soak.growth([]) == Growth(0, 0, 0, 0, 0)


def test_memory_that_rises_all_the_time_has_grown() -> None:
    grown = soak.growth(memory(*range(100, 150)))
    assert grown.slope == pytest.approx(MIB / 10, abs=0.1)
    assert grown.samples == 30
    assert grown.verdict == "grew"


def test_how_long_a_run_is_does_not_change_what_grows() -> None:
    """A thirtieth of a MiB for each handoff is 3 % in a short run, and kills an agent in a long one."""
    for count in (60, 600):
        sizes = [Memory(10 * each, "old", 100 * MIB + each * MIB // 3) for each in range(count)]
        assert soak.growth(sizes).verdict == "grew"


def test_a_saw_tooth_is_flat_once_the_run_is_long_enough() -> None:
    def teeth(count: int) -> list[Memory]:
        return [Memory(10 * each, "old", 100 * MIB + each % 12 * MIB // 4) for each in range(count)]

    assert soak.growth(teeth(35)).verdict == "too short to tell"
    assert soak.growth(teeth(150)).verdict == "flat"
    leaks = [replace(each, bytes=each.bytes + 6000 * each.number) for each in teeth(150)]
    assert soak.growth(leaks).verdict == "grew"


def test_a_run_that_ends_while_agents_warm_up_says_so() -> None:
    assert soak.growth(memory(*range(100, 120))).verdict == "too short to tell"


def test_a_soak_held_if_nothing_failed_and_nothing_grew() -> None:
    handed = [Handed(1, "vm1", "new", 20_000_000, 30_000_000, 900_000_000)]
    assert Seen(handed, memory(*[100] * 10)).held
    assert not Seen([], memory(*[100] * 10)).held
    assert not Seen(handed, memory(*range(100, 150))).held
    assert not Seen(handed, [], [Failed(2, "vm1", "1 ticks missing")]).held
    assert not Seen(handed, [], [], [Outcome("garbage", "", "", problems=["1 taps"])]).held


class FakeGround:
    """Two VMs; the one called `stuck` does not go at its second handoff."""

    def __init__(self, stuck: str = "") -> None:
        self.vms = [SimpleNamespace(name=name, machine="q35") for name in ("vm1", "vm2")]
        self.stuck, self.tried, self.readied = stuck, 0, 0

    def ready(self, *, joined: bool) -> None:
        self.readied += 1

    def versions(self) -> dict[str, str]:
        return {"kernel": "1.0"}

    def hand_all(self, to: str, names: list[str], handed: Callable[[HandoffResult], None]) -> None:
        self.tried += 1
        for name in names:
            if self.tried != 2 or name != self.stuck:
                handed(HandoffResult(name=name, stopped_ns=5, resumed_ns=20))
        if self.tried == 2 and self.stuck:
            raise MultirootError("it is stuck")

    def stretch(self, root: str, at_least: int = 0, name: str = "") -> Stretch:
        return Stretch()

    def shell(self, line: str, root: str) -> str:
        return "VmRSS: 1000 kB"


def soaked(stuck: str, monkeypatch: pytest.MonkeyPatch, file: Path) -> tuple[FakeGround, Seen]:
    monkeypatch.setattr(soak.check, "guest_problems", lambda pieces: [])
    monkeypatch.setattr(soak, "gap_around", lambda ticks, stopped, resumed: 30)
    ground = FakeGround(stuck)
    run = Soak(cast(Any, ground), file, lambda seen: None)
    run.run(9)
    return ground, run.seen


def test_all_vms_go_by_each_command_and_come_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ground, seen = soaked("", monkeypatch, tmp_path / "soak")
    assert ground.tried == 6
    assert [(each.number, each.vm, each.to) for each in seen.handed[:4]] == [
        (1, "vm1", "new"),
        (2, "vm2", "new"),
        (3, "vm1", "old"),
        (4, "vm2", "old"),
    ]
    assert len(seen.handed) == 12
    assert not seen.failed
    assert {each.root for each in seen.memory} == {"old", "new"}
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "soak").read_text().splitlines()]
    assert (kinds[0], kinds.count("handed"), kinds[-1]) == ("header", 12, "summary")


def test_one_that_stays_is_an_error_and_the_next_round_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ground, seen = soaked("vm1", monkeypatch, tmp_path / "soak")
    assert [(each.vm, each.problem) for each in seen.failed] == [("vm1", "it is stuck")]
    assert ground.readied == 2
    assert len(seen.handed) == 11
    assert not seen.held


def test_only_faults_that_end_no_guest_are_chosen_at_random() -> None:
    assert all(not fault.ends and not fault.strike for fault in soak.harmless())
    assert len(soak.harmless()) > 20


def test_what_a_soak_judges_is_a_test_point_each() -> None:
    handed = [Handed(1, "vm1", "new", 20_000_000, 30_000_000, 900_000_000)]
    faults = [Outcome("garbage", "", "", problems=["1 taps"]), Outcome("late", "", "")]
    seen = Seen(handed, memory(*[100] * 10), [Failed(2, "vm1", "1 ticks missing")], faults)
    assert [(each.claim, str(each.outcome)) for each in seen.points()] == [
        ("every handoff went well", "FAILED"),
        ("fault 1: garbage", "FAILED"),
        ("fault 2: late", "held"),
        ("the memory of the old root's agent", "held"),
        ("the memory of the new root's agent", "held"),
    ]
    assert seen.points()[0].details == ("handoff 2 of vm1: 1 ticks missing",)


def test_machines_take_turns() -> None:
    found = soak.busy_vms(3, ("q35", "microvm"))
    assert [(each.name, each.machine) for each in found] == [
        ("vm1", "q35"),
        ("vm2", "microvm"),
        ("vm3", "q35"),
    ]
