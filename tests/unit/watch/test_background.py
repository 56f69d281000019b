# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching beside a program: what it hears, waits for and says, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from multiroot.errors import BadRequestError, ConflictError, MultirootError, WaitTimeoutError
from multiroot.rpc.client import Address
from multiroot.rpc.v1 import watch_pb2
from multiroot.watch.background import InBackground
from multiroot.watch.collect import Collector
from multiroot.watch.decode import to_json
from multiroot.watch.events import Event, Say, State
from multiroot.watch.facts import Facts, RootFacts, RootState
from multiroot.watch.told import to_proto
from multiroot.watch.view import View


async def agent(root: int | None, since: Mapping[str, int]) -> AsyncIterator[watch_pb2.WatchEvent]:
    document = to_json(Facts(roots={"1": RootFacts(1, "old", RootState.ALIVE)}))
    yield to_proto(1, State(5, document))
    await asyncio.Event().wait()


def made(look: Callable[[], object] | None = None) -> Collector:
    return Collector(Address("none"), look, open_stream=agent)  # type: ignore[arg-type]


def nobody(event: Event, view: View) -> None:
    """Hears nothing."""


def test_it_hears_waits_and_says() -> None:
    heard: list[Event] = []
    with InBackground(made, lambda event, view: heard.append(event)) as watching:
        facts = watching.wait(lambda facts: "1" in facts.roots, 10, "no root was seen")
        assert facts.roots["1"].state is RootState.ALIVE
        watching.say("hello")
        with pytest.raises(WaitTimeoutError, match=r"no second root within 0\.05 s"):
            watching.wait(lambda facts: "2" in facts.roots, 0.05, "no second root")
    assert isinstance(heard[0], State)
    assert any(isinstance(each, Say) and each.text == "hello" for each in heard)


def test_what_goes_wrong_at_the_beginning_is_raised_there() -> None:
    def broken() -> Collector:
        raise BadRequestError("no such lab")

    with pytest.raises(BadRequestError, match="no such lab"), InBackground(broken, nobody):
        pass


def test_what_goes_wrong_later_is_raised_by_the_next_call_and_at_the_end() -> None:
    def full(event: Event, view: View) -> None:
        if isinstance(event, Say) and event.text:
            raise ConflictError("the disk is full")

    with pytest.raises(ConflictError, match="the disk is full"), InBackground(made, full) as watching:  # noqa: PT012
        watching.say("x")
        watching._thread.join(10)
        watching.say("y")


def test_the_bodys_own_error_goes_first() -> None:
    def full(event: Event, view: View) -> None:
        raise ConflictError("the disk is full")

    with pytest.raises(ValueError, match="mine"), InBackground(made, full):
        raise ValueError("mine")


def test_what_is_asked_of_one_that_has_just_ended_is_not_waited_for() -> None:
    with InBackground(made, lambda event, view: None) as watching:
        watching._loop.call_soon_threadsafe(watching._stop.set)
        watching._thread.join()
        with pytest.raises(MultirootError, match="nobody watches any more"):
            watching.say("too late")
