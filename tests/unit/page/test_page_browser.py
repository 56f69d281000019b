# SPDX-License-Identifier: GPL-2.0-or-later
"""The page in a real browser, on a recording: it shows what that says, whatever happens to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_driver import (
    END,
    SAMPLE,
    SECOND,
    Server,
    Viewer,
    compare,
    facts_at,
    facts_json,
    sample_until,
    write_recording,
)

from multiroot.page import bundle
from multiroot.page.server import Served
from multiroot.watch.events import Change, Points, Say, State
from multiroot.watch.recording import Recording

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def replayed() -> Iterator[Server]:
    with Server(Served(recording=SAMPLE)) as running:
        yield running


def test_the_page_shows_what_the_recording_says_at_every_moment(browser: Browser, replayed: Server) -> None:
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        for seconds in (0.5, 3.5, 6.5, 13.0, 15.0, 15.7, 17.0, 19.5, 20.9, 24.0, 5.0):
            viewer.seek(seconds)
            compare(viewer, facts_at(seconds))


def test_the_memory_stays_while_the_card_slides(browser: Browser, replayed: Server) -> None:
    where = """() => ['[data-extent=vm0]', 'button[data-vm=vm0]']
        .map(each => document.querySelector(each).getBoundingClientRect().left)"""
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(15.7)
        memory, card = viewer.page.evaluate(where)
        viewer.page.evaluate("multiroot.seek(16.5), multiroot.draw(), multiroot.hold(0)")
        assert viewer.page.evaluate(where) == pytest.approx([memory, card], abs=2)
        viewer.page.evaluate("multiroot.hold(550)")
        memory_then, card_then = viewer.page.evaluate(where)
        viewer.page.evaluate("multiroot.finish()")
        memory_after, card_after = viewer.page.evaluate(where)
    assert memory_then == pytest.approx(memory, abs=2)
    assert memory_after == pytest.approx(memory, abs=2)
    assert card + 50 < card_then < card_after - 50


def test_a_recording_plays_by_itself_at_the_chosen_speed(browser: Browser, replayed: Server) -> None:
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#speed=16")
        viewer.says("#headline", "The VM has not noticed")
        viewer.says("#play", "again")
        viewer.says("#verdict", "Everything held")
        compare(viewer, facts_at(END))
        viewer.page.locator("#speed").select_option("0.05")
        viewer.page.locator("#play").click()
        viewer.says("#headline", "One machine. One kernel.")


def test_what_held_is_judged_from_the_facts(browser: Browser, replayed: Server) -> None:
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(24)
        held = viewer.page.locator("#held li").evaluate_all("all => all.map(each => each.dataset.held)")
        assert held == ["yes"] * 6
        assert "multiroot handoff vm0" in viewer.text("#commands")


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"machine": {"resets": 1}}, "never reset"),
        ({"handoffs": {"vm0/2": {"ram_bytes_copied": 4096}}}, "memory stayed"),
        ({"vms": {"vm0": {"extents": [{"start": 4296015872, "size": 268435456}]}}}, "memory stayed"),
        ({"vms": {"vm0": {"owner": 1}}}, "owned by one kernel alone"),
        ({"cpus": {"0": {"root": 2, "number": 0}}}, "No CPU has two owners"),
    ],
)
def test_what_did_not_hold_is_said(
    browser: Browser, tmp_path: Path, change: dict[str, Any], claim: str
) -> None:
    events = list(sample_until(END))
    path = write_recording(tmp_path / "bad.mrlog", *events, Change(events[-1].at, change))
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        viewer.seek(END)
        assert claim in viewer.text("#held [data-held=no]")
        assert "did not hold" in viewer.text("#verdict")


def test_lost_and_repeated_ticks_are_counted(browser: Browser, tmp_path: Path) -> None:
    *events, last = sample_until(END)
    counter = facts_at(END).vms["vm0"].ticks
    assert counter is not None
    more = Points(
        last.at, {"ticks/vm0": [(last.at, counter.counter + 50, 2), (last.at, counter.counter + 50, 2)]}
    )
    path = write_recording(tmp_path / "gap.mrlog", *events, last, more)
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        viewer.seek(END)
        assert re.search(r"[1-9]\d* missing, 1 twice", viewer.text("#held [data-held=no]"))


def test_keys_play_and_seek_and_change_the_theme(browser: Browser, replayed: Server) -> None:
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        page = viewer.page
        page.keyboard.press("ArrowRight")
        viewer.says("#time", "1.0 of")
        page.keyboard.press("ArrowLeft")
        viewer.says("#time", "0.0 of")
        page.keyboard.press("Space")
        viewer.says("#play", "pause")
        page.keyboard.press("Space")
        viewer.says("#play", "play")
        assert page.locator("html").get_attribute("data-theme") == "light"
        page.keyboard.press("t")
        page.keyboard.press("t")
        assert page.locator("html").get_attribute("data-theme") == "dark"
        page.reload()
        viewer.ready()
        assert page.locator("html").get_attribute("data-theme") == "dark"


def test_everything_that_can_be_used_is_reached_with_tab_and_says_what_it_is(
    browser: Browser, replayed: Server
) -> None:
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(17)
        reached = set()
        for _ in range(20):
            viewer.page.keyboard.press("Tab")
            reached.add(
                viewer.page.evaluate("document.activeElement.id || document.activeElement.dataset.vm")
            )
        assert {"theme", "vm0", "play", "seek", "speed"} <= reached
        nameless = viewer.page.evaluate(
            """() => [...document.querySelectorAll('button, select, input, svg[role=img]')]
                .filter(each => !(each.innerText || each.labels?.length || each.ariaLabel || each.title))
                .map(each => each.outerHTML)"""
        )
        assert nameless == []


def test_less_motion_means_none(browser: Browser, replayed: Server) -> None:
    with Viewer(browser) as viewer:
        viewer.page.emulate_media(reduced_motion="reduce")
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(15.7)
        viewer.page.evaluate("multiroot.seek(16.5), multiroot.draw()")
        assert viewer.page.evaluate("document.getAnimations().length") == 0


def test_a_crash_is_told_before_anything_else(browser: Browser, tmp_path: Path) -> None:
    events = list(sample_until(13))
    panic = "Kernel panic - not syncing: sysrq triggered crash"
    crash = {"roots": {"2": {"state": "crashed", "role": "", "console": ["one", panic], "splats": [panic]}}}
    path = write_recording(tmp_path / "crash.mrlog", *events, Change(events[-1].at + 1, crash))
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        viewer.seek(END)
        assert viewer.text("#headline") == "The new kernel has crashed. vm0 never left the old one."
        assert viewer.text(".splat") == panic
        assert viewer.page.locator("#kernel-right").get_attribute("data-state") == "crashed"


def test_a_vm_is_the_takers_once_its_owner_word_has_changed(browser: Browser, tmp_path: Path) -> None:
    events = list(sample_until(15.5))
    changed = Change(events[-1].at + 1, {"vms": {"vm0": {"owner": 2, "epoch": 2}}})
    path = write_recording(tmp_path / "changed.mrlog", *events, changed)
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        viewer.seek(0)
        viewer.seek(15.2)
        assert viewer.page.locator("#kernel-right .vm.ghost").count() == 1
        viewer.seek(END)
        assert viewer.page.locator(".vm.ghost").count() == 0
        assert "has changed hands: root 2 owns it now" in viewer.text("#subline")


def test_a_root_is_drawn_across_from_the_one_that_started_it(browser: Browser, tmp_path: Path) -> None:
    events = list(sample_until(13))
    at = events[-1].at
    gone: dict[str, Any] = {"roots": {"2": {"state": "ended", "role": ""}}, "cpus": {}}
    back = {str(cpu): {"root": 1, "number": cpu, "state": "online"} for cpu in (2, 3)}
    granted = {"3": {"root": 3, "number": None, "state": "granted"}}
    third = {"3": {"number": 3, "role": "new", "state": "starting", "kernel_release": "6.1.0"}}
    changes = [gone, {"cpus": back}, {"cpus": granted}, {"roots": third}]
    more = [Change(at + (n + 1) * SECOND, change) for n, change in enumerate(changes)]
    path = write_recording(tmp_path / "third.mrlog", *events, *more)
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        start = (at - events[0].at) / SECOND
        viewer.seek(start + 2.5)
        assert "root 2 has ended" in viewer.text("#kernel-right")
        viewer.seek(start + 3.5)
        assert viewer.page.locator("#kernel-right .cpu[data-state=granted]").count() == 1
        viewer.seek(start + 5)
        assert "root 1" in viewer.text("#kernel-left")
        assert "Linux 6.1.0 " in viewer.text("#kernel-right") + " "


def test_a_silent_root_is_not_shown_as_if_it_were_heard(browser: Browser, tmp_path: Path) -> None:
    events = list(sample_until(17))
    at = events[-1].at
    root = {"state": "unknown", "heard_ns": at - 4 * SECOND}
    silent = {"roots": {"2": root}, "vms": {"vm0": {"state": "unknown"}}}
    path = write_recording(tmp_path / "silent.mrlog", *events, Change(at, silent))
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        viewer.seek(END)
        assert "Root 2 is not heard" in viewer.text("#headline")
        assert "last heard 4 s ago" in viewer.text("#kernel-right")
        assert "is not heard" in viewer.text("button[data-vm=vm0]")


def test_lines_of_a_recording_that_are_no_events_are_left_out(browser: Browser, tmp_path: Path) -> None:
    good = SAMPLE.read_text().splitlines()
    bad = ["{", "[]", "null", '{"at":"x","say":"no"}', '{"at":1e400}', '{"at":186000000000}', "\u0000"]
    path = tmp_path / "mixed.mrlog"
    path.write_text("\n".join([*good[:50], *bad, *good[50:]]) + "\n")
    with Server(Served(recording=path)) as running, Viewer(browser) as viewer:
        viewer.open(f"{running.address}#paused")
        viewer.seek(END)
        compare(viewer, facts_at(END))
        assert int(viewer.page.locator("body").get_attribute("data-refused") or 0) == len(bad)


def test_words_of_kernels_and_agents_stay_words(browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>window.evil=1</script>"
    document = facts_json(1)
    document["roots"]["1"] |= {"kernel_release": evil, "console": [evil], "splats": [evil]}
    document["vms"][evil] = {"state": evil, "owner": 1, "epoch": 1, "error": evil}
    path = write_recording(tmp_path / "evil.mrlog", State(1, document), Say(1, evil))
    page_file = tmp_path / "evil.html"
    bundle.write(Recording(path), page_file)
    with Viewer(browser) as viewer:
        viewer.open(f"{page_file.as_uri()}#paused")
        viewer.seek(END)
        assert viewer.text("#headline") == evil
        assert viewer.page.evaluate("window.evil === undefined && !document.querySelector('img')")


def test_one_html_file_shows_a_recording_with_no_server(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    bundle.write(Recording(SAMPLE), out, {"ours_ns": 5e7, "kexec_ns": 15e9, "started": "today"})
    text = out.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)
    with Viewer(browser) as viewer:
        asked: list[str] = []
        viewer.page.on("request", lambda request: asked.append(request.url))
        viewer.open(f"{out.as_uri()}#paused")
        viewer.seek(END)
        compare(viewer, facts_at(END))
        assert "300 times as long" in viewer.text("#compare-text")
        assert [each for each in asked if not each.startswith(("data:", "file:"))] == []


def test_without_a_bench_nothing_is_compared(browser: Browser, replayed: Server) -> None:
    with Viewer(browser) as viewer:
        viewer.open(f"{replayed.address}#paused")
        viewer.seek(17)
        assert viewer.page.locator("#compare").is_hidden()


SIZES = {"laptop": (1280, 720), "wall": (3840, 2160), "phone": (390, 844)}
MOMENTS = {"crossing": 15.7, "after": 17.0}
BELOW = """['figures', 'player'].map(id => document.getElementById(id).getBoundingClientRect())
    .reduce((figures, player) => player.top - figures.bottom)"""


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_the_page(browser: Browser, replayed: Server, shots: Path, size: str) -> None:
    width, height = SIZES[size]
    with Viewer(browser, width=width, height=height) as viewer:
        viewer.open(f"{replayed.address}#paused")
        for name, seconds in MOMENTS.items():
            for theme in ("light", "dark"):
                viewer.page.emulate_media(color_scheme=theme)
                viewer.seek(seconds)
                viewer.page.screenshot(path=shots / f"{size}-{theme}-{name}.png")
                assert viewer.page.locator("html").get_attribute("data-theme") == theme
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width
        if size != "phone":
            # The whole stage is on one screen, above the player's bar.
            assert viewer.page.evaluate(BELOW) >= 0
