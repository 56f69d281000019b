# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a new root whose kernel speaks, panics, stands still or joins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from launch.kernel_memory import BANNER, Memory, Printk

from multiroot.coordinator import join
from multiroot.coordinator.join import BootWatch, Console, wait_for_join
from multiroot.errors import MultirootError, PeerLostError, WaitTimeoutError
from multiroot.launch.kernel_log import KernelLog
from multiroot.ranges import Range
from multiroot.root.peers import Peers, SideState

PANIC = "Kernel panic - not syncing: VFS: Unable to mount root fs\n"


class NewRoot:
    """Its memory, its state, and an old root's agent that waits for it."""

    root = 2

    def __init__(self) -> None:
        self.state = SideState.STARTED
        self.memory = bytearray(1 << 16)
        self.kernel = Printk(self.memory, 4096)
        self.peers = Peers(lambda: 0, lambda: 0)
        self.heard: list[str] = []
        self.react: Callable[[str], None] = lambda line: None
        console = Console()
        console.subscribe(self._hear)
        self.watch = BootWatch(
            KernelLog(Memory(self.memory, 1 << 20), Range(1 << 20, len(self.memory))), console
        )

    def _hear(self, line: str) -> None:
        self.heard.append(line)
        self.react(line)

    def becomes(self, state: SideState) -> None:
        self.state = state
        self.peers.notify()

    async def learned(self) -> None:
        """Its agent answers all calls at once."""

    async def waited_for(self, folder: Path, timeout: float = 60) -> None:
        waiting = wait_for_join(self.peers, cast(Any, self), self.watch, timeout, self.learned, folder)
        await asyncio.wait_for(waiting, 30)

    async def fails(self, folder: Path, timeout: float = 60) -> MultirootError:
        with pytest.raises(MultirootError) as caught:
            await self.waited_for(folder, timeout)
        return caught.value


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> NewRoot:
    """With a hurry that a real one would not stand."""
    times = {"POLL_S": 0.005, "SEARCH_AGAIN_S": 0.01, "SETTLE_S": 0.02, "STALL_S": 0.1, "UNPACK_S": 0.5}
    for name, seconds in times.items():
        monkeypatch.setattr(join, name, seconds)
    return NewRoot()


async def test_a_panic_is_told_while_the_time_to_join_has_not_passed(new: NewRoot, tmp_path: Path) -> None:
    for line in (BANNER, PANIC, "---[ end Kernel panic ]---\n"):
        new.kernel.say(line)
    error = await new.fails(tmp_path)
    assert isinstance(error, PeerLostError)
    assert error.message == f"the new root's kernel panicked: {PANIC.strip()!r}"
    kept = tmp_path / "console-root-2.log"
    assert str(kept) in error.hint
    assert kept.read_text().splitlines() == new.heard
    assert new.heard[-1] == "---[ end Kernel panic ]---"


async def test_what_the_cpus_did_is_kept_with_what_was_said(new: NewRoot, tmp_path: Path) -> None:
    for line in (BANNER, PANIC):
        new.kernel.say(line)
    traces = ["What its CPUs did:", "CPU 0: init (pid 1)", "  ? panic+0x1/0x2"]
    with pytest.raises(PeerLostError):
        await wait_for_join(new.peers, cast(Any, new), new.watch, 60, new.learned, tmp_path, lambda: traces)
    kept = (tmp_path / "console-root-2.log").read_text().splitlines()
    assert kept == [*new.heard, *traces]


async def test_the_trace_behind_a_crash_is_waited_for(new: NewRoot, tmp_path: Path) -> None:
    def go_on(line: str) -> None:
        if line.startswith("BUG"):
            new.kernel.say("Call Trace:\n")

    new.react = go_on
    new.kernel.say(BANNER)
    new.kernel.say("BUG: kernel NULL pointer dereference, address: 8\n")
    assert "crashed: 'BUG: kernel NULL" in (await new.fails(tmp_path)).message
    assert new.heard[-1] == "Call Trace:"


async def test_a_kernel_that_stands_still_is_told_by_its_last_words(new: NewRoot, tmp_path: Path) -> None:
    new.kernel.say(BANNER)
    new.kernel.say("Trying to unpack rootfs image as initramfs...\n")
    error = await new.fails(tmp_path)
    assert isinstance(error, WaitTimeoutError)
    assert "stood still for 0.1 s; the last it said: 'Trying to unpack" in error.message


async def test_a_kernel_that_never_says_anything_stands_still_too(new: NewRoot, tmp_path: Path) -> None:
    error = await new.fails(tmp_path)
    assert "stood still for 0.5 s; nothing was heard of it" in error.message
    assert not list(tmp_path.iterdir())


async def test_who_gives_it_more_time_to_join_lets_it_be_silent_for_longer(
    new: NewRoot, tmp_path: Path
) -> None:
    new.kernel.say(BANNER)
    error = await new.fails(tmp_path, timeout=3 * join.JOIN_TIMEOUT_S)
    assert "stood still for 0.3 s" in error.message


async def test_before_its_first_word_a_kernel_may_be_silent_for_longer(new: NewRoot, tmp_path: Path) -> None:
    waiting = asyncio.create_task(new.waited_for(tmp_path))
    assert not (await asyncio.wait({waiting}, timeout=0.25))[0]
    new.kernel.say(BANNER)
    new.react = lambda line: new.becomes(SideState.READY)
    await waiting


async def test_a_module_that_came_up_has_all_the_time_to_join(new: NewRoot, tmp_path: Path) -> None:
    new.state = SideState.ATTACHED
    new.kernel.say(BANNER)
    error = await new.fails(tmp_path, timeout=0.3)
    assert "did not join within 0.3 s; its kernel module came up; the last it said" in error.message
    assert error.hint.endswith("; --timeout 1 gives a slow machine longer")


async def test_an_agent_that_does_not_start_is_told_by_its_own_words(new: NewRoot, tmp_path: Path) -> None:
    new.state = SideState.ATTACHED
    new.kernel.say(BANNER)
    new.kernel.say("multirootd: cannot map the arena (build it with FS_DAX)\n")
    new.kernel.say("multiroot: mark agent-started 60.1\n")
    error = await new.fails(tmp_path, timeout=0.3)
    assert "its agent does not start: 'multirootd: cannot map the arena (build" in error.message


async def test_one_that_parks_is_noticed_at_once_with_what_it_said(new: NewRoot, tmp_path: Path) -> None:
    new.kernel.say(BANNER)
    new.react = lambda line: new.becomes(SideState.PARKED)
    new.kernel.say("reboot: Power down\n")
    error = await new.fails(tmp_path)
    assert isinstance(error, PeerLostError)
    assert "ended while it came up; the last it said: 'reboot: Power down'" in error.message


async def test_one_that_says_it_is_slow_and_joins_has_joined(new: NewRoot, tmp_path: Path) -> None:
    new.kernel.say(BANNER)
    new.kernel.say("watchdog: BUG: soft lockup - CPU#1 stuck for 26s!\n")
    new.kernel.say("multiroot: loaded\n")
    new.react = lambda line: new.becomes(SideState.READY) if "loaded" in line else None
    await new.waited_for(tmp_path)
    assert len(new.heard) == 3


async def test_memory_that_cannot_be_read_keeps_nobody_from_joining(new: NewRoot, tmp_path: Path) -> None:
    class Hidden(Memory):
        def find_word(self, phys: int, size: int, word: int) -> int:
            raise MultirootError("cannot look")

    hidden = Hidden(new.memory, 1 << 20)
    new.watch = BootWatch(KernelLog(hidden, Range(1 << 20, len(new.memory))), Console())
    waiting = asyncio.create_task(new.waited_for(tmp_path))
    await asyncio.sleep(0)
    new.becomes(SideState.READY)
    await waiting


async def test_an_agent_that_is_ready_is_waited_for_until_it_has_learned_the_rest(
    new: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = asyncio.Event()

    async def learn() -> None:
        await learned.wait()

    monkeypatch.setattr(new, "learned", learn)
    new.becomes(SideState.READY)
    waiting = asyncio.create_task(new.waited_for(tmp_path))
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()
    learned.set()
    await waiting


async def test_a_launch_fails_by_what_keeps_its_agent_from_learning_the_rest(
    new: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def learn() -> None:
        raise MultirootError("the agent of root 2 does not start: the journal is damaged")

    monkeypatch.setattr(new, "learned", learn)
    new.becomes(SideState.READY)
    assert "the journal is damaged" in (await new.fails(tmp_path)).message


async def test_an_agent_has_no_more_time_to_learn_the_rest_than_its_root_has_to_join(
    new: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def learn() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(new, "learned", learn)
    new.becomes(SideState.READY)
    error = await new.fails(tmp_path, 0.1)
    assert isinstance(error, WaitTimeoutError)
    assert "did not answer all calls within 0.1 s" in error.message


async def test_a_root_that_ends_or_panics_while_its_agent_learns_is_not_waited_for(
    new: NewRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = asyncio.Event()

    async def learn() -> None:
        learning.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(new, "learned", learn)
    for end in (lambda: new.becomes(SideState.PARKED), lambda: new.kernel.say(PANIC)):
        learning.clear()
        new.becomes(SideState.READY)
        new.kernel.say(BANNER)
        failing = asyncio.create_task(new.fails(tmp_path))
        await learning.wait()
        end()
        assert isinstance(await failing, PeerLostError)
