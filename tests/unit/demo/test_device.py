# SPDX-License-Identifier: GPL-2.0-or-later
"""The account of numbered frames, read from a guest's output."""

from __future__ import annotations

import pytest

from multiroot.demo.device import Frames, foreign_lines, judge, parse
from multiroot.rpc.v1.device_pb2 import DeviceMoved, DeviceTranslation

OLD = b"READY boot=x\nT 1\nF 3 9 count=7 lost=0 again=0 dropped=0\nT 2"
NEW = b"a\nF 3 20 count=18 lost=0 again=0 dropped=0\nT 5\nF 3 30 cou"
PLACE = {"did": 16, "context": 1, "leaves": 5, "crc": 7}


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
    seen = judge(OLD, NEW, same)
    assert (seen.told_before, seen.frames.last, seen.same_translations, seen.pages) == (9, 20, True, 5)
    same.after.crc = 8
    assert not judge(OLD, NEW, same).same_translations
    assert not judge(OLD, NEW, DeviceMoved()).same_translations
