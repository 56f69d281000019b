# SPDX-License-Identifier: GPL-2.0-or-later
"""What is heard of an agent that takes long to come up."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from multiroot.agent import coming_up
from multiroot.agent.coming_up import AT, MESSAGE_MOST, MESSAGES_MOST, ComingUp
from multiroot.verdict.health import WELL, judge


class Kmsg:
    """A file of which each write is a message; `heard` is set when `most` have come."""

    def __init__(self, most: int = 1) -> None:
        self.messages: list[str] = []
        self.heard = threading.Event()
        self._most = most

    def write_text(self, text: str) -> None:
        self.messages.append(text)
        if len(self.messages) >= self._most:
            self.heard.set()


def begun(kmsg: object, first_s: float = 0.01) -> ComingUp:
    return ComingUp(kmsg, first_s).begin()  # type: ignore[arg-type]


async def waits_deep(never: asyncio.Event) -> None:
    async def inside() -> None:
        await never.wait()

    await inside()


async def test_threads_and_what_tasks_wait_for_are_told() -> None:
    kmsg = Kmsg(2)
    never = asyncio.Event()
    task = asyncio.create_task(waits_deep(never), name="network")
    watch = begun(kmsg)
    watch.loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(kmsg.heard.wait, 20)
    watch.done()
    never.set()
    await task
    (told,) = {each.rpartition(" after ")[0] for each in kmsg.messages if "network" in each}
    places = [word for word in told.split() if not word.startswith("(")]
    assert told.startswith(f"<3>{AT}network: wait (locks.py:")
    assert places[-5:] == ["wait", "<", "inside", "<", "waits_deep"]
    assert any(f"{AT}MainThread: " in each for each in kmsg.messages)
    assert all(len(each) < MESSAGE_MOST + 30 for each in kmsg.messages)


def test_one_that_has_come_up_is_not_told_of() -> None:
    kmsg = Kmsg()
    watch = begun(kmsg, first_s=20)
    watch.done()
    watch.done()
    assert kmsg.messages == []


async def test_the_kernel_is_not_told_more_than_it_takes() -> None:
    never = asyncio.Event()
    tasks = [asyncio.create_task(waits_deep(never)) for _ in range(2 * MESSAGES_MOST)]
    kmsg = Kmsg(MESSAGES_MOST)
    watch = begun(kmsg, first_s=0.5)
    watch.loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(kmsg.heard.wait, 20)
    watch.done()
    never.set()
    await asyncio.gather(*tasks)
    assert " more after " in kmsg.messages[MESSAGES_MOST - 1]


def test_what_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = threading.Event()

    class Missing(Kmsg):
        def write_text(self, text: str) -> None:
            told.set()
            (tmp_path / "missing/kmsg").write_text(text)

    watch = begun(Missing())
    assert told.wait(20)
    watch.done()
    assert "cannot write to" in capsys.readouterr().err


def test_who_judges_kernels_takes_it_for_no_trouble() -> None:
    lines = [f"{AT}{place}" for place in coming_up.of_threads() or ["MainThread: main (daemon.py:1)"]]
    assert judge(lines, WELL) == WELL
