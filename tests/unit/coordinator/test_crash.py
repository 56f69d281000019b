# SPDX-License-Identifier: GPL-2.0-or-later
"""A new root that ends by itself is reported, once, with its last words and what its CPUs did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from launch.kernel_memory import BANNER, Memory, Printk

from multiroot.coordinator import crash
from multiroot.coordinator.crash import CrashWatch, Report
from multiroot.errors import MultirootError
from multiroot.ranges import Range
from multiroot.root.peers import Peers, Role, SideState

START = 1 << 20
TRACES = ["What its CPUs did:", "CPU 0: init (pid 1)"]


def said(tmp_path: Path, *messages: str) -> Report:
    memory = bytearray(1 << 16)
    kernel = Printk(memory, 4096)
    for message in messages:
        kernel.say(message)
    return crash.look(
        Memory(memory, START), Range(START, len(memory)), 2, lambda: TRACES, tmp_path / "consoles"
    )


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("Kernel panic - not syncing: oh", "root 2's kernel panicked: 'Kernel panic - not syncing: oh'"),
        ("BUG: kernel NULL pointer dereference", "root 2's kernel crashed: 'BUG: kernel NULL pointer"),
        ("reboot: Power down", "root 2 ended by itself; the last it said: 'reboot: Power down'"),
    ],
)
def test_a_report_says_how_it_ended_and_names_the_file_with_the_rest(
    tmp_path: Path, message: str, what: str
) -> None:
    found = said(tmp_path, BANNER, f"{message}\n")
    assert found.what.startswith(what)
    assert found.traces == tuple(TRACES)
    kept = tmp_path / "consoles" / "console-root-2.log"
    assert str(kept) in found.hint
    assert kept.read_text().splitlines() == [BANNER.strip(), message, *TRACES]


def test_memory_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    class Hidden(Memory):
        def find_word(self, phys: int, size: int, word: int) -> int:
            raise MultirootError("cannot look")

    memory = Hidden(bytearray(1 << 16), START)
    found = crash.look(memory, Range(START, 1 << 16), 2, lambda: TRACES, tmp_path)
    assert found.what == "root 2 ended by itself"
    assert found.traces == ("What its CPUs did cannot be read: cannot look",)


class Roots:
    """A watch over a new root whose state the test sets; `looked` are the roots that were reported."""

    def __init__(self) -> None:
        self.wanted = True
        self.looked: list[int] = []
        self.peers = Peers(lambda: 0, lambda: 0)
        self.watch = CrashWatch(self.peers, lambda: self.wanted, self._look)

    def _look(self, root: int) -> Report:
        self.looked.append(root)
        return Report(root, "it ended", "")

    def start(self, root: int, state: SideState) -> None:
        side = SimpleNamespace(state=state, root=root, heartbeat=0, release="")
        self.peers.attach(Role.CHILD, cast(Any, SimpleNamespace(mine=side, theirs=side)))
        self.peers.notify()

    async def until(self, report: Report | None) -> None:
        async with asyncio.timeout(10):
            while self.watch.report != report:
                await asyncio.sleep(0)


async def test_each_end_is_reported_once_and_until_another_root_is_started() -> None:
    roots = Roots()
    task = asyncio.create_task(roots.watch.run())
    roots.start(2, SideState.READY)
    await asyncio.sleep(0)
    assert roots.watch.report is None
    roots.start(2, SideState.PARKED)
    await roots.until(Report(2, "it ended", ""))
    roots.peers.detach(Role.CHILD)
    await asyncio.sleep(0)
    assert roots.watch.report
    roots.start(3, SideState.STARTED)
    await roots.until(None)
    assert roots.looked == [2]
    task.cancel()


async def test_an_end_that_was_wanted_is_no_news() -> None:
    roots = Roots()
    roots.wanted = False
    task = asyncio.create_task(roots.watch.run())
    roots.start(2, SideState.PARKED)
    for _ in range(10):
        await asyncio.sleep(0)
    assert roots.looked == []
    task.cancel()
