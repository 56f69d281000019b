# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a lab in a real browser: handoffs as they happen, a server that goes and comes, buttons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from page_driver import END, Server, Viewer, compare, facts_at, facts_json, sample_until

from multiroot.page.actions import Actions, catalogue
from multiroot.page.server import Served
from multiroot.proc import Completed
from multiroot.watch.events import Change, Points, Say, State

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOKEN = "0123456789abcdef"


# A lab, as far as a browser can tell: a hub that something is published to.


@pytest.fixture
def live() -> Iterator[Server]:
    with Server(Served(lab="default")) as running:
        yield running


def test_a_handoff_is_seen_as_it_happens_and_after_a_reload_in_the_middle(
    browser: Browser, live: Server
) -> None:
    events = list(sample_until(END))
    middle = next(
        n for n, each in enumerate(events) if isinstance(each, Change) and "frozen" in str(each.patch)
    )
    with Viewer(browser) as viewer:
        live.publish(*events[:100])
        viewer.open(live.address)
        viewer.says("#link", "live")
        live.publish(*events[100 : middle + 1])
        viewer.says("button[data-vm=vm0]", "stands still")
        viewer.page.reload()
        viewer.ready()
        viewer.says("button[data-vm=vm0]", "stands still")
        live.publish(*events[middle + 1 :])
        viewer.says("[data-fact=blackout]", "96 ms")
        viewer.says("#headline", "The VM has not noticed")
        viewer.page.evaluate("multiroot.draw(), multiroot.finish()")
        compare(viewer, facts_at(END))


def test_a_lost_server_is_told_of_and_found_again(browser: Browser) -> None:
    events = list(sample_until(END))
    running = Server(Served(lab="default"))
    try:
        with Viewer(browser) as viewer:
            running.publish(*events[:100])
            viewer.open(running.address)
            viewer.says("#link", "live")
            viewer.page.locator("button[data-vm=vm0]").wait_for()  # drawn, and not only heard of
            viewer.forgive = True
            running.stop()
            viewer.says("#banner", "does not answer")
            viewer.says("#link", "no connection")
            # What was known stays on show.
            assert viewer.page.locator("button[data-vm=vm0]").count() == 1
            running = Server(Served(lab="default"), running.port)
            running.publish(*events)
            viewer.says("#headline", "The VM has not noticed")
            viewer.says("#link", "live")
            assert viewer.page.locator("#banner").is_hidden()
            compare(viewer, facts_at(END))
    finally:
        running.stop()


def test_buttons_show_the_command_first_and_ask_where_something_is_lost(browser: Browser) -> None:
    ran: list[tuple[str, ...]] = []

    def run(argv: Any, timeout: float) -> Completed:
        ran.append(tuple(argv))
        return Completed(tuple(argv), 0, "root 2 would get CPUs 2-3", "")

    served = Served(lab="default", actions=Actions(catalogue("7.x", "default"), run), token=TOKEN)
    with Server(served) as running, Viewer(browser) as viewer:
        running.publish(*list(sample_until(1)))
        viewer.open(f"{running.address}#token={TOKEN}")
        page = viewer.page
        page.locator("[data-action=launch]").click()
        viewer.says("#ask-command", "multiroot root launch --kernel 7.x")
        viewer.says("#ask-dry", "would get CPUs 2-3")
        assert page.locator("#ask-loss").is_hidden()
        page.keyboard.press("Escape")
        assert ran == [("root", "launch", "--kernel", "7.x", "--dry-run")]
        page.locator("[data-action=launch]").click()
        page.locator("#ask-yes").click()
        viewer.says("#said", "exit code 0")
        assert ran[-1] == ("root", "launch", "--kernel", "7.x")
        assert page.locator("[data-action=crash]").is_disabled()
        running.publish(*list(sample_until(17)))
        page.locator("[data-action=crash]").click()
        viewer.says("#ask-loss", "Running there now: vm0")
        page.locator("#ask button[value=no]").click()
        assert "sysrq" not in str(ran)


def test_without_a_token_every_button_is_off(browser: Browser) -> None:
    served = Served(lab="default", actions=Actions(catalogue("7.x", "default")), token=TOKEN)
    with Server(served) as running, Viewer(browser) as viewer:
        running.publish(*list(sample_until(1)))
        viewer.open(running.address)
        viewer.says("#control-text", "may only look")
        assert viewer.page.locator("#buttons button").count() == 7
        assert viewer.page.locator("#buttons button:enabled").count() == 0


def test_ten_thousand_events_and_bad_ones_leave_the_page_small_and_right(
    browser: Browser, live: Server
) -> None:
    filler = [(184_000_000_000 + n * 10_000_000, n, 1) for n in range(20_000)]
    with Viewer(browser) as viewer:
        live.publish(*list(sample_until(1)))
        viewer.open(live.address)
        viewer.says("#link", "live")
        for number in range(100):
            numbers = range(number * 100, number * 100 + 100)
            live.publish(*(Points(186_000_000_000 + n, {"ticks/vm0": filler[n : n + 2]}) for n in numbers))
        bad: list[Any] = [
            {"vms": []}, {"roots": 3}, {"update": {"order": 7}}, {"handoffs": {"x": None, "y": 1}},
            {"cpus": {"0": 1}}, {"memory": {"0x0": {"start": "x", "size": -1}}}, {"machine": "?"},
            {"__proto__": {"x": 1}},
        ]  # fmt: skip
        live.publish(*(Change(187_000_000_000, patch) for patch in bad), Say(187_000_000_001, "still here"))
        viewer.says("#headline", "still here")
        points = viewer.page.evaluate("[...multiroot.model.strips.values()].map(each => each.length)")
        assert max(points) <= 6000
        assert viewer.page.evaluate("({}).x === undefined")
        live.publish(State(188_000_000_000, facts_json(17)))
        viewer.says(".owner-now", "(root 2, epoch 2)")
