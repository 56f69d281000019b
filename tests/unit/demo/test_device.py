# SPDX-License-Identifier: GPL-2.0-or-later
"""The account of numbered frames, read from a guest's output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multiroot.demo.demo_report import _device_checks
from multiroot.demo.device import (
    BLOCK,
    PLACES,
    Frames,
    Writes,
    foreign_lines,
    interrupts,
    judge,
    misplaced,
    parse,
    parse_writes,
)
from multiroot.rpc.v1.device_pb2 import DeviceMoved, DeviceTranslation

OLD = b"READY boot=x\nT 1\nF 3 9 count=7 lost=0 again=0 dropped=0\nT 2"
NEW = b"a\nF 3 20 count=18 lost=0 again=0 dropped=0\nT 5\nF 3 30 cou"
REST: Any = {"in_blackout": 3, "resets_before": 2, "resets": 0, "interrupts": (5, 6)}
PLACE = {"did": 16, "context": 1, "leaves": 5, "crc": 7, "remapped": 3}


def test_only_whole_lines_count() -> None:
    assert parse(OLD) == [Frames(3, 9, 7, 0, 0, 0)]
    assert parse(NEW) == [Frames(3, 20, 18, 0, 0, 0)]
    assert parse(b"F 1 2 count=2 lost=0 again=0 dropped=0\n") == []


@pytest.mark.parametrize(
    "frames",
    [Frames(3, 9, 6, 1, 0, 0), Frames(3, 9, 8, 0, 1, 0), Frames(3, 9, 8, 0, 0, 0), Frames(3, 9, 6, 0, 0, 0)],
)
def test_a_frame_lost_or_repeated_breaks_it(frames: Frames) -> None:
    assert Frames(3, 9, 7, 0, 0, 0).unbroken
    assert not frames.unbroken


def test_a_driver_that_speaks_is_heard() -> None:
    assert foreign_lines(NEW) == 0
    assert foreign_lines(b"cut\nigb: reset adapter\nT 5\ncut") == 1
    clock, card = b"[  108.5] clocksource: Long readout interval", b"[  108.6] igb 0000:01:00.0 eth1: Reset"
    assert foreign_lines(b"cut\n" + clock + b"\n" + card + b"\ncut") == 1


def test_a_handoff_is_judged_by_what_stayed() -> None:
    same = DeviceMoved(
        before=DeviceTranslation(owner=1, table=10, **PLACE),
        after=DeviceTranslation(owner=2, table=20, **PLACE),
        same=5,
    )
    seen = judge(OLD, NEW, same, **REST)
    assert (seen.told_before, seen.frames.last, seen.same_translations, seen.pages) == (9, 20, True, 5)
    assert seen.remapped == 3
    same.after.remapped = 2
    assert not judge(OLD, NEW, same, **REST).same_translations
    same.after.MergeFrom(DeviceTranslation(remapped=3, crc=8))
    assert not judge(OLD, NEW, same, **REST).same_translations
    assert not judge(OLD, NEW, DeviceMoved(), **REST).same_translations


def test_interrupts_are_those_of_all_vectors_and_cpus() -> None:
    table = """           CPU0       CPU1
  24:          3          0  PCI-MSIX-0000:00:01.0   0-edge      virtio0-config
  30:         10          2  PCI-MSIX-0000:01:00.0   0-edge      vfio-msix[0](0000:01:00.0)
  31:          0          4  PCI-MSIX-0000:01:00.0   1-edge      vfio-msix[1](0000:01:00.0)
"""
    assert interrupts(table) == 16
    assert interrupts("") == 0


def test_each_claim_about_the_card_can_fail() -> None:
    same = DeviceMoved(
        before=DeviceTranslation(owner=1, **PLACE), after=DeviceTranslation(owner=2, **PLACE), same=5
    )
    seen = judge(OLD, NEW, same, **REST)
    assert all(check.held for check in _device_checks("vm", seen))
    for change in (
        {"frames": Frames(3, 20, 17, 1, 0, 0)},
        {"same_translations": False},
        {"in_blackout": 0},
        {"resets": 1},
        {"resets_before": 0},
        {"interrupts": (5, 0)},
        {"driver_lines": 1},
    ):
        worse = replace(seen, **change)
        assert sum(not check.held for check in _device_checks("vm", worse)) == 1, change


def disk_after(last: int, lost: tuple[int, ...] = ()) -> bytes:
    """What numbered writes up to `last` leave, but for those that were lost."""
    disk = bytearray(BLOCK * PLACES)
    for number in range(1, last + 1):
        if number not in lost:
            at = number % PLACES * BLOCK
            disk[at : at + BLOCK] = number.to_bytes(8, "little") * (BLOCK // 8)
    return bytes(disk)


def test_accounts_of_writes_are_found() -> None:
    output = b"T 1\nB 7 begun=9 bad=0\nT 2\nB 8 beg"
    assert parse_writes(output) == [Writes(7, 9, 0)]
    assert foreign_lines(b"cut\nB 7 begun=9 bad=0\ncut") == 0


@pytest.mark.parametrize("last", [3, 100, PLACES - 1, PLACES, PLACES + 70, 2 * PLACES + 1])
@pytest.mark.parametrize("since", [0, 5])
def test_all_writes_in_their_places(last: int, since: int) -> None:
    assert misplaced(disk_after(last + since), Writes(last, last, 0)) == []


def test_a_write_that_is_missing_is_found() -> None:
    last = PLACES + 70
    assert misplaced(disk_after(last, lost=(PLACES + 20,)), Writes(last, last, 0)) == [20]
    assert misplaced(disk_after(last, lost=(500,)), Writes(last, last, 0)) == [500]


def test_one_under_way_may_be_missing() -> None:
    last = PLACES + 70
    assert misplaced(disk_after(last, lost=(last - 1,)), Writes(last - 2, last, 0)) == []


def test_a_torn_block_is_found() -> None:
    disk = bytearray(disk_after(100))
    disk[50 * BLOCK + 8] ^= 1
    assert misplaced(bytes(disk), Writes(100, 100, 0)) == [50]
