# SPDX-License-Identifier: GPL-2.0-or-later
"""Watchers: each gets everything, a slow one gets it anew, and nobody's memory grows."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from multiroot.watch.events import Change, Event, Point, Points, Say, State
from multiroot.watch.hub import MOST, Hub
from multiroot.watch.view import KEPT, View

STREAM = {"streams": {"ticks/vm0": {"kind": "ticks"}}, "vms": {}}


def made() -> tuple[View, Hub[Event]]:
    view = View()
    hub: Hub[Event] = Hub(view)
    hub.publish(State(1, STREAM))
    return view, hub


async def test_a_watcher_gets_all_that_is_known_and_then_what_comes() -> None:
    _, hub = made()
    hub.publish(Change(2, {"vms": {"vm0": {"owner": 1}}}))
    async with aclosing(hub.watch()) as events:
        assert await anext(events) == State(2, {**STREAM, "vms": {"vm0": {"owner": 1}}})
        assert await anext(events) == Say(2, "")
        coming = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        hub.publish(Say(3, "now"))
        assert await coming == Say(3, "now")


async def test_a_slow_watcher_gets_the_state_in_place_of_what_it_missed_and_memory_is_bounded() -> None:
    view, hub = made()
    async with aclosing(hub.watch()) as slow:
        await anext(slow)
        for number in range(10_000):
            hub.publish(Points(2 + number, {"ticks/vm0": [(number, number, 1)]}))
        (watcher,) = hub._watchers
        assert len(watcher.waiting) <= MOST
        assert len(view.strips["ticks/vm0"]) == KEPT
        assert await anext(slow) == Say(1, "")  # what was said before it fell behind
        again = [await anext(slow) for _ in range(3)]
    assert [type(each) for each in again] == [State, Points, Say]
    assert isinstance(again[1], Points)
    newest: list[Point] = again[1].points["ticks/vm0"]
    assert newest[-1] == (9_999, 9_999, 1)
    assert len(newest) == KEPT
    assert not hub.watched


async def test_a_slow_watcher_does_not_hold_up_others() -> None:
    _, hub = made()
    async with aclosing(hub.watch()) as slow, aclosing(hub.watch()) as quick:
        await anext(slow)
        for _ in range(2):
            await anext(quick)
        for number in range(3 * MOST):
            hub.publish(Say(number + 2, str(number)))
            assert await anext(quick) == Say(number + 2, str(number))


async def test_when_it_closes_everybody_gets_the_rest() -> None:
    _, hub = made()
    heard: list[Event] = []

    async def listen() -> None:
        async for event in hub.watch():
            heard.append(event)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    hub.publish(Say(5, "last"))
    hub.close()
    await listening
    assert heard[-1] == Say(5, "last")


def test_points_of_unknown_strips_are_dropped_and_a_strip_goes_with_its_stream() -> None:
    view, _ = made()
    view.apply(Points(2, {"ping/vm0": [(1, 1)], "ticks/vm0": [(1, 1)]}))
    assert list(view.strips) == ["ticks/vm0"]
    view.apply(Change(3, {"streams": {"ticks/vm0": None}}))
    assert not view.strips


async def test_what_comes_at_once_comes_in_one_bundle_and_silence_is_told() -> None:
    _, hub = made()
    async with aclosing(hub.bundles(0.02, 0.05)) as bundles:
        assert await anext(bundles) == [State(1, STREAM), Say(1, "")]
        assert await anext(bundles) == []
        coming = asyncio.create_task(anext(bundles))
        await asyncio.sleep(0)
        said = [Say(number, str(number)) for number in range(2, 6)]
        hub.publish(said[0])
        await asyncio.sleep(0.001)
        for event in said[1:]:
            hub.publish(event)
        assert await coming == said
        # One that was not read for long gets the whole state.
        for number in range(2 * MOST):
            hub.publish(Say(10 + number, "x"))
        assert await anext(bundles) == [State(9 + 2 * MOST, STREAM), Say(9 + 2 * MOST, "x")]
        hub.publish(Say(9999, "last"))
        hub.close()
        assert [bundle async for bundle in bundles] == [[Say(9999, "last")]]
    assert not hub.watched
