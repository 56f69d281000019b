# SPDX-License-Identifier: GPL-2.0-or-later
"""A page's server in a thread, and a real browser that looks at it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect

from multiroot.page import server
from multiroot.page.server import Served
from multiroot.watch.events import Change, Event, Points, Say, State
from multiroot.watch.facts import Facts
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

SAMPLE = Path(__file__).parents[1] / "watch/sample.mrlog"
SHOTS = "MULTIROOT_SHOTS"  # the folder that gets the screenshots, in place of one of pytest's
SECOND = 1_000_000_000
END = 1_000.0  # seconds; later than any recording here ends
WAIT_MS = 60_000  # for what a browser shows at once, on a computer that has other things to do

expect.set_options(timeout=WAIT_MS)


class Server:
    """Serves on a port of its own until `stop`; `again` serves something on the same port."""

    def __init__(self, served: Served, port: int = 0) -> None:
        self.served = served
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._runner = self.call(self._start, port)
        self.port: int = self._runner.addresses[0][1]

    @property
    def address(self) -> str:
        return f"http://{server.HOST}:{self.port}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def publish(self, *events: Event) -> None:
        """Tell all browsers."""
        self.call(self._publish, events)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine function in the server's loop."""
        done: Future[Any] = asyncio.run_coroutine_threadsafe(function(*arguments), self._loop)
        return done.result(30)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.call(self._runner.cleanup)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _start(self, port: int) -> web.AppRunner:
        runner = web.AppRunner(server.application(self.served), access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, server.HOST, port, reuse_address=True).start()
        return runner

    async def _publish(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self.served.hub.publish(event)


class Viewer:
    """A browser's page that must have nothing to complain about."""

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 720) -> None:
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="light", reduced_motion="no-preference"
        )
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.forgive = False  # while the server is away, the browser says so
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._answered)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._context.close()
        if kind is None:
            assert not self.complaints

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.ready()

    def ready(self) -> None:
        self.page.locator("body[data-ready]").wait_for()

    def seek(self, seconds: float) -> None:
        """Go to a moment of the recording, and wait until that is drawn and nothing moves."""
        self.page.evaluate("at => { multiroot.seek(at); multiroot.draw(); multiroot.finish(); }", seconds)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).inner_text().split())

    def says(self, selector: str, text: Any) -> None:
        """Wait until it does."""
        expect(self.page.locator(selector)).to_contain_text(text)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not self.forgive:
            self.complaints.append(message.text)

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and not self.forgive:
            self.complaints.append(f"{response.url}: {response.status}")


def sample_until(seconds: float) -> Iterator[Event]:
    """The sample's events of its first seconds."""
    first = 0
    for event in Recording(SAMPLE).events():
        first = first or event.at
        if event.at - first > seconds * SECOND:
            return
        yield event


def write_recording(path: Path, *events: Event | dict[str, Any]) -> Path:
    """A recording of these."""
    from multiroot.watch.events import to_json

    lines = [{"mrlog": 1, "version": "0", "started": "", "title": "of a test"}]
    lines += [to_json(each) if isinstance(each, State | Change | Points | Say) else each for each in events]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def shots_folder(otherwise: Path) -> Path:
    """Where screenshots are kept."""
    folder = Path(os.environ.get(SHOTS, "") or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def facts_json(seconds: float) -> dict[str, Any]:
    """The sample's document after its first seconds."""
    view = View()
    for event in sample_until(seconds):
        view.apply(event)
    return view.document


def facts_at(seconds: float) -> Facts:
    """The same as facts."""
    view = View()
    for event in sample_until(seconds):
        view.apply(event)
    return view.facts


def compare(viewer: Viewer, facts: Facts) -> None:
    """What the page shows is what the facts are."""
    assert viewer.text("#resets") == str(facts.machine.resets)
    for number, root in facts.roots.items():
        box = f"#kernel-{'left' if int(number) % 2 else 'right'}"
        assert viewer.page.locator(box).get_attribute("data-state") == root.state
        assert f"root {number}" in viewer.text(box)
        assert root.kernel_release in viewer.text(box)
    tiles = viewer.page.locator(".cpu")
    assert tiles.count() == len(facts.cpus)
    for each in facts.cpus.values():
        side = {0: "#park", 1: "#kernel-left", 2: "#kernel-right"}[each.root]
        ours = viewer.page.locator(f"{side} .cpu").evaluate_all("all => all.map(each => each.dataset.state)")
        assert each.state in ours
    for name, vm in facts.vms.items():
        where = viewer.page.locator(f"button[data-vm='{name}']")
        side = "left" if vm.owner % 2 else "right"
        assert where.evaluate("card => card.closest('.kernel').dataset.side") == side
        assert f"(root {vm.owner}, epoch {vm.epoch})" in viewer.text(".owner-now")
    for handoff in facts.handoffs.values():
        if handoff.stage == "done":
            assert viewer.text("[data-fact=copied]") == f"{handoff.ram_bytes_copied} bytes"
            assert viewer.text("[data-fact=state]") == f"{round(handoff.device_state_bytes / 1000)} kB"
            assert (
                viewer.text("[data-fact=blackout]")
                == f"{(handoff.resumed_ns - handoff.stopped_ns) / 1e6:g} ms"
            )
            if handoff.gap_ns:
                assert viewer.text("[data-fact=gap]") == f"{handoff.gap_ns / 1e6:g} ms"
    edges = viewer.page.locator(".step").evaluate_all("all => all.map(each => each.dataset.edge)")
    assert edges == [edge_shown(facts, name) for name in facts.update.order]


def edge_shown(facts: Facts, name: str) -> str:
    """A step's edge; who has handed all VMs over by hand has done `handover`."""
    edge = facts.update.steps[name].edge
    alive = [vm for vm in facts.vms.values() if vm.state in ("running", "frozen", "paused")]
    newest = max((root.number for root in facts.roots.values()), default=0)
    by_hand = facts.update.steps["join"].edge == "done" and {vm.owner for vm in alive} == {newest}
    return "done" if name == "handover" and not edge and by_hand else edge
