# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of the README's own recording: a handoff by hand, pings and web answers, a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_driver import Server, Viewer

from multiroot.page.server import Served
from multiroot.watch.events import Change, Points, State
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RUN = Path(__file__).parents[3] / "docs/run.mrlog"
EVENTS = list(Recording(RUN).events())
END = (EVENTS[-1].at - EVENTS[0].at) / 1e9


@pytest.fixture(scope="module")
def replayed() -> Iterator[Server]:
    with Server(Served(recording=RUN)) as running:
        yield running


def before_and_after() -> tuple[float, float]:
    """Seconds in the recording: before the VM has crossed, and after."""
    view = View()
    for event in EVENTS:
        view.apply(event)
        if isinstance(event, (State, Change)) and any(vm.owner == 2 for vm in view.facts.vms.values()):
            at = (event.at - EVENTS[0].at) / 1e9
            return at - 0.5, END
    raise AssertionError("no VM crosses in it")


def test_who_hands_over_by_hand_has_done_the_step(browser: Browser, replayed: Server) -> None:
    before, after = before_and_after()
    edge = "all => all.find(each => each.textContent.startsWith('handover')).dataset.edge"
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        for moment, expected in ((before, ""), (after, "done")):
            viewer.seek(moment)
            assert viewer.page.locator(".step").evaluate_all(edge) == expected


def test_the_moment_has_what_the_guest_answered(browser: Browser, replayed: Server) -> None:
    (handoff,) = (vm for vm in _end().facts.handoffs.values() if vm.stage == "done")
    around = [
        at
        for event in EVENTS
        if isinstance(event, Points)
        for name, points in event.points.items()
        if name in (f"ping/{handoff.vm}", f"web/{handoff.vm}")
        for at, *_ in points
        if handoff.stopped_ns - 0.2e9 < at < handoff.resumed_ns + 0.2e9
    ]
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(END)
        assert viewer.page.locator("#moment-svg .answer").count() >= len(around) > 0
        assert viewer.page.locator("#moment-svg .beat-label").all_text_contents() == ["answers"]


def test_the_vms_name_fits_its_memory_on_a_phone(browser: Browser, replayed: Server) -> None:
    with Viewer(browser, width=390, height=844) as viewer:
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(END)
        wide, room = viewer.page.locator("[data-extent]").evaluate("it => [it.scrollWidth, it.clientWidth]")
        assert wide <= room


def _end() -> View:
    view = View()
    for event in EVENTS:
        view.apply(event)
    return view
