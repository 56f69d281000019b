# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of an agent that answers and then cannot learn the rest."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from multiroot.agent import agent, daemon
from multiroot.agent.coming_up import ComingUp
from multiroot.agent.context import Options
from multiroot.errors import BadRequestError, BugError, MultirootError


class Agent:
    """One that fails as it is told."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.told: list[str] = []

    async def start(self) -> None:
        self.told.append("started")

    async def learn(self) -> None:
        raise self.error

    def refuse(self, error: MultirootError) -> None:
        self.told.append(f"refuses: {error}")

    async def stop(self) -> None:
        self.told.append("stopped")


@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (BadRequestError("the journal is damaged"), "the journal is damaged", BadRequestError),
        (KeyError("vm"), "this is a bug", BugError),
    ],
)
async def test_those_who_wait_are_told_before_it_ends(
    error: Exception,
    said: str,
    kind: type[MultirootError],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Agent(error)
    monkeypatch.setattr(daemon, "Agent", lambda options: made)
    with pytest.raises(kind) as ended:
        await daemon.serve(Options(), ComingUp(tmp_path / "kmsg").begin())
    assert error in (ended.value, ended.value.__cause__)
    assert [each.partition(":")[0] for each in made.told] == ["started", "refuses", "stopped"]
    assert said in made.told[1]


def test_drivers_are_waited_for_as_long_as_they_are_being_loaded(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    waiter = threading.Thread(target=agent._wait_for_drivers, args=(lock,))
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiter.start()
        waiter.join(0.1)
        assert waiter.is_alive()
    waiter.join()
    agent._wait_for_drivers(None)
