# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes an animated picture of a recording's handoff: screenshots of the real page in a real Chromium.

python -m multiroot.page.picture run.mrlog run.webp
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from multiroot import proc
from multiroot.errors import BadRequestError
from multiroot.page import bundle
from multiroot.watch.events import Change, State
from multiroot.watch.facts import RootState
from multiroot.watch.recording import Recording
from multiroot.watch.view import View

if TYPE_CHECKING:
    from PIL import Image
    from playwright.sync_api import Page

WIDTH, HEIGHT = 1280, 700
KINDS = (".webp", ".png", ".gif")
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_SLIDE_MS = (0, 120, 240, 360, 480, 600, 720, 840, 960, 1100)  # of the slide, which takes as long as the last
_FRAME_MS = 90
_HOLD_MS = 2200
_END_MS = 4500


def chromium() -> str:
    """The browser's path; raises BadRequestError when there is none."""
    for name in _PROGRAMS:
        if found := proc.find(name):
            return found
    raise BadRequestError("no Chromium is installed", "apt-get install chromium")


def moments(recording: Recording) -> list[float]:
    """When a picture is worth taking, in seconds from the beginning: before each change that one can see
    well, and at the end. The last handoff that was done is `crossing`.
    """
    first, last, found = 0, 0, [0.3]
    before: tuple[object, ...] = ()
    view = View()
    for event in recording.events():
        first = first or event.at
        last = event.at
        view.apply(event)
        if not isinstance(event, (State, Change)):
            continue
        now = _seen(view)
        if any(root.state == RootState.UNKNOWN for root in view.facts.roots.values()):
            # An agent that a busy machine has kept from speaking comes back; that is not what is told here.
            continue
        if before and now != before:
            found.append((event.at - first) / 1e9)
        before = now
    return [*found, (last - first) / 1e9]


def _seen(view: View) -> tuple[object, ...]:
    """What of the facts makes a picture another one."""
    facts = view.facts
    return (
        tuple(sorted((number, root.state) for number, root in facts.roots.items())),
        tuple(sorted((name, vm.owner) for name, vm in facts.vms.items())),
        tuple(sorted((key, handoff.stage) for key, handoff in facts.handoffs.items())),
        view.said,
    )


def write(recording: Recording, out: Path) -> None:
    """Write the picture; its kind is that of the name. Raises BadRequestError for another kind, or when
    Chromium, playwright or Pillow are not there.
    """
    if out.suffix not in KINDS:
        raise BadRequestError(f"no animated picture: {out.name!r}", f"end its name in {', '.join(KINDS)}")
    browser = chromium()
    try:
        from PIL import Image
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BadRequestError(f"{error.name} is missing", "pip install 'multiroot[dev]'") from error
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as drive:
        page_file = Path(folder) / "run.html"
        bundle.write(recording, page_file)
        chrome = drive.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chrome.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(f"{page_file.as_uri()}#paused")
        page.locator("body[data-ready]").wait_for()
        page.evaluate("document.body.classList.add('picture')")
        shots = list(_shots(page, moments(recording)))
        chrome.close()
    frames = [Image.open(io.BytesIO(data)).convert("RGB") for data, _ in shots]
    save(frames, [ms for _, ms in shots], out)


def _shots(page: Page, times: list[float]) -> Iterator[tuple[bytes, int]]:
    """Screenshots with the ms that each stands. Where something slides, several."""
    for time, until in zip(times, [*times[1:], times[-1]], strict=True):
        page.evaluate(f"multiroot.seek({time + 0.001})")
        # Drawn now, so that what slides begins to; its animations are then set to each moment by hand.
        moving = page.evaluate("multiroot.draw(), multiroot.hold(0)")
        for at in _SLIDE_MS if moving else ():
            page.evaluate(f"multiroot.hold({at})")
            yield _shot(page), _FRAME_MS
        page.evaluate("multiroot.finish()")
        # What stands still is shown as it is a little later, with strips that have gone on.
        page.evaluate(f"multiroot.seek({min(time + 1.2, max(time, until - 0.01))}), multiroot.draw()")
        page.evaluate("multiroot.finish()")
        yield _shot(page), _END_MS if until == time else _HOLD_MS if until - time > 0.9 else 700


def _shot(page: Page) -> bytes:
    """What the page shows now. A screenshot alone may still be what it showed before, on a busy computer."""
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    return page.screenshot()


def save(frames: list[Image.Image], times: list[int], out: Path) -> None:
    """Write frames as one picture that goes round; alike neighbours become one."""
    kept: list[Image.Image] = []
    stands: list[int] = []
    for frame, ms in zip(frames, times, strict=True):
        if kept and frame.tobytes() == kept[-1].tobytes():
            stands[-1] += ms
            continue
        kept.append(frame)
        stands.append(ms)
    first, *rest = kept
    if out.suffix == ".webp":
        first.save(out, save_all=True, append_images=rest, duration=stands, loop=0, quality=82, method=4)
    else:
        first.save(out, save_all=True, append_images=rest, duration=stands, loop=0)


if __name__ == "__main__":
    write(Recording(Path(sys.argv[1])), Path(sys.argv[2]))
