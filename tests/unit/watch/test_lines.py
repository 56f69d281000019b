# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes in words, and the screen: what a person must see is there, at 80x24 and without colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from multiroot.cli.watch_screen import HEIGHT, WIDTH, screen
from multiroot.watch.decode import to_json
from multiroot.watch.events import Change, Points, Say, State
from multiroot.watch.facts import (
    CpuFacts,
    CpuState,
    Facts,
    FrameFacts,
    HandoffFacts,
    MachineFacts,
    MemoryKind,
    NoticeFacts,
    RangeFacts,
    RootFacts,
    RootState,
    Stage,
    StepFacts,
    StreamFacts,
    TickFacts,
    UpdateFacts,
    VmFacts,
)
from multiroot.watch.lines import changes
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

SAMPLE = Path(__file__).with_name("sample.mrlog")
DONE = HandoffFacts("vm0", 1, 2, 2, Stage.DONE, 1, 100_000_000, 196_000_000, 0, 72_319, 0)


def facts() -> Facts:
    return Facts(
        machine=MachineFacts("default", "tcg", 0, 4 << 30, 2),
        cpus={"0": CpuFacts(1, 0), "1": CpuFacts(1, 1)},
        roots={"1": RootFacts(1, "old", RootState.ALIVE, "6.12", booted_ns=1)},
        vms={"vm0": VmFacts("running", 1, 1, 256 << 20)},
    )


def test_each_change_is_a_line() -> None:
    before, after = facts(), facts()
    assert list(changes(before, after)) == []
    after.machine.resets = 1
    after.roots["1"].state = RootState.CRASHED
    after.roots["1"].splats = ["Kernel panic"]
    after.roots["2"] = RootFacts(2, "new", RootState.STARTING)
    after.cpus["1"] = CpuFacts(2, None, CpuState.GRANTED)
    after.update = UpdateFacts(steps={"plan": StepFacts("begin", 1)}, error="no room")
    after.vms["vm0"] = VmFacts("lost", 1, 1, notices=[NoticeFacts(1, "the guest rebooted")])
    after.vms["vm1"] = VmFacts("running", 1, 4)
    after.handoffs["vm0/2"] = DONE
    assert list(changes(before, after)) == [
        "the machine was reset: 1 times so far",
        "root 1 (6.12) has crashed",
        "root 1 says: Kernel panic",
        "root 2 is starting",
        "the CPU with hardware id 1 is granted of root 2",
        "step plan: begin",
        "the update failed: no room",
        "VM vm0 is lost, owned by root 1, epoch 1",
        "VM vm0: the guest rebooted",
        "VM vm1 is running, owned by root 1, epoch 4",
        "handed vm0 from root 1 to root 2: no vCPU ran for 96.0 ms, 72319 bytes of device state, "
        "0 bytes of RAM copied",
    ]


def test_what_changes_all_the_time_is_no_line() -> None:
    before, after = facts(), facts()
    after.vms["vm0"].ticks = TickFacts(7, 7)
    after.roots["1"].console = ["hello"]
    after.clock.ns = 9
    assert list(changes(before, after)) == []


def test_the_gap_comes_when_it_is_known_and_vms_go() -> None:
    before, after = facts(), facts()
    before.handoffs["vm0/2"] = DONE
    after.handoffs["vm0/2"] = replace(DONE, gap_ns=107_000_000)
    del after.vms["vm0"]
    assert list(changes(before, after)) == [
        "VM vm0 is gone",
        "handed vm0 from root 1 to root 2: the guest's own gap was 107.0 ms",
    ]


def shown(view: View, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    return [line.plain for line in screen(view, width, height)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 8), (200, 60)])
def test_every_picture_of_a_run_fits(width: int, height: int) -> None:
    view = View()
    for event in Recording(SAMPLE).events():
        view.apply(event)
        if not isinstance(event, Points):
            lines = shown(view, width, height)
            assert len(lines) < height
            assert all(len(line) < width for line in lines)
            assert "resets: 0" in lines[0]


def test_the_screen_says_what_happened() -> None:
    view = View()
    for event in Recording(SAMPLE).events():
        view.apply(event)
    text = "\n".join(shown(view))
    for words in (
        "root 1  ENDED",
        "root 2  ALIVE",
        "RUNNING",
        "(root 2, epoch 2)",
        "0 bytes of RAM copied",
        "ms from tick to tick",
    ):
        assert words in text


def test_memory_stands_in_the_order_of_its_addresses() -> None:
    """A merge patch puts a new range behind all others, and a VM's block must not move by that."""
    view, now = View(), facts()
    now.memory = {
        name: RangeFacts(start << 30, 1 << 30, kind, root)
        for name, start, kind, root in (
            ("image", 6, MemoryKind.IMAGE, 0),
            ("arena", 4, MemoryKind.ARENA, 0),
            ("spare", 1, MemoryKind.SPARE, 0),
            ("carve", 5, MemoryKind.CARVE, 2),
            ("old", 0, MemoryKind.SYSTEM, 1),
        )
    }
    view.apply(State(1, to_json(now)))
    (bar,) = (line for line in shown(view) if line.startswith("memory"))
    assert "".join(dict.fromkeys(bar.split()[1])) == "1-aci"


def test_what_is_wrong_is_in_sight() -> None:
    view = View()
    wrong = facts()
    wrong.machine.resets = 2
    wrong.roots["1"].state = RootState.UNKNOWN
    wrong.roots["1"].splats = ["BUG: it broke"]
    wrong.roots["1"].console = ["later", "still later"]
    wrong.update = UpdateFacts(order=["plan"], error="no room", next="wait")
    wrong.vms = {f"vm{number}": VmFacts("unknown", 1, 1) for number in range(9)}
    view.apply(State(1, to_json(wrong)))
    text = "\n".join(shown(view))
    for words in ("resets: 2", "UNKNOWN", "BUG: it broke", "no room", "and 5 more VMs"):
        assert words in text


def test_a_gap_is_an_empty_part_of_the_strip_and_terminals_get_no_orders() -> None:
    view = View()
    told = facts()
    told.streams["ticks/vm0"] = StreamFacts("ticks", "vm0", "count")
    told.roots["1"].console = ["\x1b[2Jhello"]
    view.apply(State(1, to_json(told)))
    ms = 1_000_000
    points = [(n * 10 * ms, n, 1) for n in (*range(1000, 1100), *range(1130, 1200))]
    view.apply(Points(12_000 * ms, {"ticks/vm0": list(points)}))
    view.apply(Say(12_000 * ms, "look"))
    view.apply(Change(12_000 * ms, {"machine": {"resets": None}}))
    lines = shown(view)
    (strip,) = (line for line in lines if line.startswith("ticks"))
    assert "||      ||" in strip
    assert "look" in lines[1]
    assert "resets: not known" in lines[0]
    assert not any("\x1b" in line for line in lines)


def test_answers_and_a_cards_frames_stand_beside_the_ticks() -> None:
    view, now = View(), facts()
    now.vms["vm0"].frames = FrameFacts(812, 1, 0, 5)
    for kind, unit in (("ticks", "count"), ("ping", "ns"), ("web", "ns"), ("frames", "count")):
        now.streams[f"{kind}/vm0"] = StreamFacts(kind, "vm0", unit)
    view.apply(State(1, to_json(now)))
    view.apply(
        Points(4_000_000_000, {"ping/vm0": [(3_900_000_000, 12_345_678)], "web/vm0": [(900_000_000, 1)]})
    )
    lines = [line.plain for line in screen(view, WIDTH, HEIGHT)]
    assert "answers vm0: ping 12.3 ms, web none for 3.1 s, its card: 812 frames, 1 lost" in lines
