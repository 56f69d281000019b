# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that run before others for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot.processes import ProcessId, start_time
from multiroot.vm.process import FIRST, URGENCY, Process, Urgency, set_urgent, started

THREADS = """
import threading
started = threading.Event()
thread = threading.Thread(target=lambda: (started.set(), input()), daemon=True)
thread.start()
started.wait()
print(flush=True)
thread.join()
"""


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


def urgencies(pid: int) -> set[tuple[int, int]]:
    """Policy and priority of its threads."""
    tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    return {(os.sched_getscheduler(task), os.sched_getparam(task).sched_priority) for task in tasks}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a process run before others")
def test_all_threads_are_urgent_and_as_usual_again(child: int) -> None:
    assert len(os.listdir(f"/proc/{child}/task")) == 2  # noqa: PTH208
    set_urgent(child, URGENCY)
    assert urgencies(child) == {(os.SCHED_RR, URGENCY)}
    set_urgent(child, 0)
    assert urgencies(child) == {(os.SCHED_OTHER, 0)}


def test_a_thread_that_ends_meanwhile_is_passed_over(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def set_scheduler(task: int, policy: int, param: os.sched_param) -> None:
        tried.append(task)
        if len(tried) == 1:
            raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setscheduler", set_scheduler)
    set_urgent(child, URGENCY)
    assert sorted(tried) == sorted(int(path.name) for path in Path(f"/proc/{child}/task").iterdir())
    assert len(tried) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a process run before others")
async def test_what_an_urgent_agent_starts_is_as_usual() -> None:
    set_urgent(os.getpid(), URGENCY)
    try:
        child = subprocess.Popen(["sleep", "60"])
        process = started(child)
        assert urgencies(child.pid) == {(os.SCHED_OTHER, 0)}
    finally:
        set_urgent(os.getpid(), 0)
    await process.kill()


def test_a_process_stays_urgent_until_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("multiroot.vm.process.set_urgent", lambda pid, urgency, first: seen.append(urgency))
    agent = Urgency()
    for who, needed in (("a", True), ("b", True), ("a", False), ("a", False)):
        agent.need(who, needed)
    assert seen == [URGENCY]
    agent.need("b", False)
    assert seen == [URGENCY, 0]


class Eased:
    """An agent, and VMMs that stay urgent when it is not any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = Urgency()
        self.said: list[str] = []
        monkeypatch.setattr("multiroot.vm.process.set_urgent", self._set)

    def _set(self, pid: int, urgency: int, first: object) -> None:
        self.said.append(f"agent {urgency}")

    def ease(self, who: str) -> list[str]:
        self.agent.ease(who, lambda: self.said.append(f"{who} gives way"))
        return self.said


@pytest.fixture
def eased(monkeypatch: pytest.MonkeyPatch) -> Eased:
    made = Eased(monkeypatch)
    made.agent.need("a", True)
    made.said.clear()
    return made


def test_a_vmm_stays_urgent_for_longer_than_the_agent(eased: Eased) -> None:
    assert eased.ease("a") == ["agent 0"]
    for _ in range(2):
        eased.agent.calm("a")
    assert eased.said == ["agent 0", "a gives way"]


def test_a_vmm_whose_guest_runs_gives_way_to_one_whose_guest_is_to_stand_still(eased: Eased) -> None:
    eased.ease("a")
    eased.agent.need("b", True)
    assert eased.said == ["agent 0", f"agent {URGENCY}", "a gives way"]
    eased.agent.calm("a")
    assert len(eased.said) == 3


def test_a_vmm_does_not_stay_urgent_beside_one_whose_guest_stands_still(eased: Eased) -> None:
    eased.agent.need("b", True)
    assert eased.ease("a") == ["a gives way"]


@pytest.mark.parametrize("needed", [True, False])
def test_a_vmm_that_is_on_its_way_again_or_was_given_up_is_not_made_usual_later(
    eased: Eased, needed: bool
) -> None:
    eased.ease("a")
    eased.agent.need("a", needed)
    eased.agent.calm("a")
    assert "a gives way" not in eased.said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a process run before others")
@pytest.mark.parametrize("begins", ["before", "after"])
def test_only_threads_that_ask_for_it_come_before_vmms(begins: str) -> None:
    """Whether the thread begins before the guest stands still or after that."""
    agent, inside, done = Urgency(), threading.Event(), threading.Event()
    after: list[int] = []

    def wait() -> None:
        with agent.first():
            inside.set()
            done.wait(10)
        after.append(os.sched_getparam(0).sched_priority)

    thread = threading.Thread(target=wait)
    try:
        for step in ("before", "needed", "after"):
            if step == "needed":
                agent.need("vm0", True)
            elif step == begins:
                thread.start()
                assert inside.wait(10)
        assert thread.native_id
        assert os.sched_getparam(thread.native_id).sched_priority == FIRST
        assert os.sched_getparam(0).sched_priority == URGENCY
        done.set()
        thread.join()
        assert after == [URGENCY], "it gives turns to the VMM, as all others do"
    finally:
        done.set()
        agent.need("vm0", False)
    assert urgencies(os.getpid()) == {(os.SCHED_OTHER, 0)}


async def test_one_that_is_gone_before_it_is_killed_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's child is reaped at once, and the loop hears of its end a moment later."""
    child = subprocess.Popen(["sleep", "60"])
    process = Process(ProcessId(child.pid, start_time(child.pid)))

    def too_late(pidfd: int, number: signal.Signals) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", too_late)
    child.kill()
    await process.kill()
    assert not process.running
    child.wait()
