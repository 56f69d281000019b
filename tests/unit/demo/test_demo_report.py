# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's verdict is false as soon as any one thing it claims did not happen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from multiroot.demo.demo_report import GuestSeen, LaunchSeen, Report, RootSeen, VmSeen
from multiroot.phases import Phase
from multiroot.vm.ticks import ClocksLost

OLD = RootSeen("6.1.0-amd64", "aaaa", "0-1", (0, 1), ((0x100000, 1 << 30, "System RAM"),), 20.0)
NEW = RootSeen("6.12.0-amd64", "bbbb", "0-1", (2, 3), ((0x140000000, 1 << 30, "System RAM"),), 9.0)
GUEST = GuestSeen("cccc", "cccc", 500, 900, 0, 0, 32 << 20, 0, 81_000_000, ClocksLost(20_000_000, 20_000_000))
VM = VmSeen("vm1", 256 << 20, 0, 240_000, 1_000, 61_001_000, 2, 1, 2, False, True, GUEST)
LAUNCH = LaunchSeen(0.2, 0.3, 0.01, 0.8, 3.0, 7.0)
PHASES = (Phase("freeze", "old root", 5, 7, blackout=True), Phase("plan", "old root", 1, 2))
GOOD = Report(
    OLD, replace(OLD, uptime_s=60.0), NEW, 2, 0, 1, 0, 0, (VM,), LAUNCH, PHASES, {"versions": {"qemu": "11"}}
)


def with_vm(**changes: object) -> Report:
    return replace(GOOD, vms=(replace(VM, **changes),))


def with_guest(**changes: object) -> Report:
    return with_vm(guest=replace(GUEST, **changes))


def test_all_held() -> None:
    assert GOOD.held
    assert all(check.held for check in GOOD.checks())


@pytest.mark.parametrize(
    ("report", "claim"),
    [
        (replace(GOOD, resets=1), "never reset"),
        (replace(GOOD, old_root_after=replace(OLD, boot_id="eeee", uptime_s=60)), "still alive"),
        (replace(GOOD, old_root_after=replace(OLD, uptime_s=19.0)), "still alive"),
        (replace(GOOD, new_root=replace(NEW, boot_id="aaaa")), "another kernel"),
        (replace(GOOD, new_root=replace(NEW, boot_id="")), "another kernel"),
        (replace(GOOD, new_root=replace(NEW, hardware_ids=(1, 2))), "share no CPU"),
        (with_vm(owner=1), "owned by the new root"),
        (with_vm(epoch_after=1), "owned by the new root"),
        (with_vm(in_old_root_after=True), "owned by the new root"),
        (with_vm(ram_bytes_copied=4096), "stayed in place"),
        (with_vm(device_state_bytes=0), "stayed in place"),
        (with_vm(answers_on_network=False), "on the network"),
        (with_guest(boot_id_after="dddd"), "never rebooted"),
        (with_guest(boot_id_before="", boot_id_after=""), "never rebooted"),
        (with_guest(missing=1), "no tick"),
        (with_guest(repeated=1), "no tick"),
        (with_guest(ticks_after=500), "no tick"),
        (with_guest(ram_bad_bytes=1), "memory intact"),
        (with_guest(ram_checked_bytes=0), "memory intact"),
        (with_guest(clocks_lost=ClocksLost(20_000_000, 28_000_000_000)), "clocks lost no more"),
        (with_guest(clocks_lost=ClocksLost(-3_000_000_000, 0)), "clocks lost no more"),
    ],
)
def test_each_claim_can_fail(report: Report, claim: str) -> None:
    assert not report.held
    failed = [check.claim for check in report.checks() if not check.held]
    assert len(failed) == 1
    assert claim in failed[0]


def test_json_has_what_is_promised_and_survives_a_round_trip() -> None:
    data = json.loads(json.dumps(GOOD.to_json()))
    assert data["held"] is True
    assert set(data["old_root"]) >= {"kernel_release", "boot_id", "cpus", "memory", "uptime_s"}
    assert data["machine"]["resets"] == 0
    assert data["vm"]["ram_bytes_copied"] == 0
    assert data["blackout_ms"] == {"vmm": 61.0, "guest": 81.0}
    assert data["guest"]["ticks_before"] == 500
    assert set(data["launch"]) == {"offline", "load", "start", "first_message", "userspace", "agent_ready"}
    assert [phase["name"] for phase in data["phases"]] == ["plan", "freeze"]
    assert data["phases"][1]["blackout"] is True
    assert data["versions"] == {"qemu": "11"}
