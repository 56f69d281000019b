# SPDX-License-Identifier: GPL-2.0-or-later
"""Those who look on: what they are shown, and when somebody has to press a key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.demo import stage
from multiroot.demo.stage import Audience, Stage
from multiroot.errors import MultirootError
from multiroot.rpc.client import Address
from multiroot.rpc.v1 import watch_pb2
from multiroot.watch.collect import Collector
from multiroot.watch.decode import to_json
from multiroot.watch.events import Event, Say, State
from multiroot.watch.facts import Facts, RootFacts, RootState
from multiroot.watch.told import to_proto
from multiroot.watch.view import View

LAB = cast(Any, SimpleNamespace(state=None))


async def agent(root: int | None, since: Mapping[str, int]) -> AsyncIterator[watch_pb2.WatchEvent]:
    while True:
        yield to_proto(1, State(5, to_json(Facts(roots={"1": RootFacts(1, "old", RootState.ALIVE)}))))


@pytest.fixture(autouse=True)
def collector(monkeypatch: pytest.MonkeyPatch) -> None:
    async def once(root: int | None, since: Mapping[str, int]) -> AsyncIterator[watch_pb2.WatchEvent]:
        yield await anext(agent(root, since))

    monkeypatch.setattr(stage, "visited", lambda lab: Collector(Address("none"), open_stream=once))


def test_texts_and_keys() -> None:
    said: list[str] = []
    keys: list[str] = []

    def hear(event: Event, view: View) -> None:
        if isinstance(event, Say) and event.text:
            said.append(event.text)

    audience = Audience(hear, lambda: keys.append("key"))
    with pytest.raises(MultirootError, match="nothing is shown yet"):
        audience.say("x")
    with audience.open(LAB):
        audience.step("It crosses.")
        assert audience.wait(lambda facts: "1" in facts.roots, "no root").roots["1"].state is RootState.ALIVE
        audience.ask("", lambda: None)
    assert keys == ["key"]
    assert said == ["It crosses. (press any key)", "It crosses.", "(press any key)"]


def test_nobody_looks_on() -> None:
    nobody = Stage()
    with nobody.open(LAB):
        nobody.step("x")
        nobody.say("y")
