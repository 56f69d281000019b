# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab as the page's source: it may come later, end, and come again; and what a browser hears then."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from multiroot import proc
from multiroot.errors import BadRequestError, PeerLostError
from multiroot.page import living
from multiroot.watch.events import Event, Say, State


class Machine:
    """A lab's machine that is there as long as `running`."""

    agent_target = "127.0.0.1:1"

    def __init__(self, *events: Event) -> None:
        self.running = True
        self.told = events
        self.left = False

    def alive(self) -> bool:
        return self.running

    @asynccontextmanager
    async def collector(self) -> AsyncIterator[Any]:
        async def events() -> AsyncIterator[Event]:
            for event in self.told:
                yield event
            await asyncio.Event().wait()

        try:
            yield SimpleNamespace(events=events)
        finally:
            self.left = True


class Silent:
    """Nobody talks to a guest."""

    board = None

    def __init__(self, lab: object) -> None:
        pass

    async def run(self, told: object) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[Machine]:
    """The machines that can be found, the last one is; empty: none."""
    machines: list[Machine] = []

    def load(name: str) -> Machine:
        if not machines:
            raise BadRequestError(f"no lab {name}")
        return machines[-1]

    monkeypatch.setattr(living.state, "load", load)
    monkeypatch.setattr(living.state, "load_alive", load)
    monkeypatch.setattr(living, "collector", lambda lab: lab.collector())
    monkeypatch.setattr(living, "Visitors", Silent)
    monkeypatch.setattr(living, "LOOK_S", 0.001)
    return machines


async def test_a_lab_may_come_later_end_and_come_again(there: list[Machine]) -> None:
    async with aclosing(living.Living("l").events()) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.01)
        assert not first.done()
        there.append(Machine(State(100, {"a": 1})))
        assert await first == Say(0, "")
        assert await anext(events) == State(100, {"a": 1})
        there[0].running = False
        assert await anext(events) == State(0, {})
        assert await anext(events) == Say(0, "The machine has ended.")
        assert there[0].left
        there.append(Machine(State(5, {"b": 2})))
        assert await anext(events) == Say(0, "")
        assert await anext(events) == State(5, {"b": 2})


async def test_who_stops_listening_leaves_nothing_behind(there: list[Machine]) -> None:
    there.append(Machine(State(1, {})))
    before = asyncio.all_tasks()
    async with aclosing(living.Living("l").events()) as events:
        await anext(events)
        await anext(events)
        assert asyncio.all_tasks() > before
    assert there[0].left
    assert asyncio.all_tasks() == before


async def test_what_cannot_be_told_is_said_and_tried_again(
    there: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    there.append(Machine(State(1, {})))

    def refuse(lab: Machine) -> Any:
        monkeypatch.setattr(living, "collector", lambda lab: lab.collector())
        raise PeerLostError("no token")

    monkeypatch.setattr(living, "collector", refuse)
    async with aclosing(living.Living("l").events()) as events:
        told = [await anext(events) for _ in range(4)]
    assert told[1] == Say(0, "Nothing can be told of the machine: no token")
    assert told[3] == State(1, {})


def test_a_command_means_this_lab(there: list[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    there.append(Machine())
    seen: dict[str, Any] = {}

    def run(argv: list[str], **options: Any) -> proc.Completed:
        seen.update(options, argv=argv)
        return proc.Completed(tuple(argv), 0, "", "")

    monkeypatch.setattr(proc, "run", run)
    living.Living("l").command(["update", "abort"], 5.0)
    assert seen["argv"] == [sys.executable, "-m", "multiroot.cli.main", "update", "abort"]
    assert seen["env"] == {"MULTIROOT_AGENT": "127.0.0.1:1"}
    assert seen["check"] is False
    assert "MULTIROOT_AGENT" not in os.environ
