# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a real machine in a real browser: a second kernel, a handoff and the way back, by its buttons.

What it shows is compared with what the agents say.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import guests
from multiroot.errors import BadRequestError
from multiroot.page.picture import chromium
from multiroot.phases import Phases
from multiroot.rpc import client
from multiroot.units import MIB

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.long
SLOW_MS = 600_000  # a kernel boots, under emulation, on a busy computer
FAST_MS = 60_000
VM = "vm1"


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A lab with one VM, which ticks and keeps a board, in the old root."""
    lab = labs_factory.fresh(kernel="6.12", vms=1)
    with client.connect(lab.agent_address, root="old") as channel:
        guests.boot(channel, guests.definitions(1, 256 * MIB), 50, Phases("test"))
    yield Cli(lab)
    labs_factory.discard(lab)


@contextmanager
def serving(cli: Cli, port: int = 0) -> Iterator[str]:
    """`multiroot lab ui` of that lab; gives the address it prints."""
    words = [sys.executable, "-m", "multiroot.cli.main", "lab", "ui", "--name", cli.lab.state.machine.name]
    words += ["--port", str(port), "--kernel", "7.x"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=cli.environment, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's page that has nothing to complain about."""
    try:
        program = chromium()
    except BadRequestError as error:
        pytest.skip(str(error))
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=FAST_MS)
    complaints: list[str] = []
    with sync_playwright() as drive:
        browser = drive.chromium.launch(executable_path=program, args=["--no-sandbox"])
        seen = browser.new_page(viewport={"width": 1280, "height": 720})
        seen.on("pageerror", lambda error: complaints.append(str(error)))
        yield seen
        browser.close()
    assert complaints == []


def press(page: Page, action: str) -> None:
    """Press a button and confirm, and wait until its command has ended well."""
    from playwright.sync_api import expect

    button = page.locator(f"[data-action={action}]")
    expect(button).to_be_enabled()
    button.click()
    page.locator("#ask-yes").click()
    expect(page.locator("#said")).to_contain_text("exit code 0", timeout=SLOW_MS)


def side(page: Page, root: int) -> str:
    return f"#kernel-{'left' if root % 2 else 'right'}"


def compare(page: Page, cli: Cli) -> None:
    """What is shown is what the agents say when they are asked."""
    from playwright.sync_api import expect

    roots: Any = cli.data("root", "list")
    vms: Any = cli.data("vm", "list")
    state: Any = cli.data("update", "show")
    for root in roots:
        box = page.locator(side(page, root["root"]))
        expect(box).to_contain_text(root["kernel_release"])
        expect(box.locator(".cpu")).to_have_count(len(root["hardware_ids"]))
    for vm in vms:
        expect(page.locator(f"{side(page, vm['owner'])} button[data-vm={vm['name']}]")).to_be_visible()
        expect(page.locator(".owner-now")).to_have_text(f"(root {vm['owner']}, epoch {vm['epoch']})")
    edges = {each["step"]: each["edge"] for each in state["steps"]}
    for step, edge in edges.items():
        shown = page.locator(".step-name", has_text=re.compile(f"^{step}$")).locator("..")
        expect(shown).to_have_attribute("data-edge", "" if edge == "undone" else edge)
    expect(page.locator("#resets")).to_have_text("0")


def generation(page: Page) -> int:
    """What the board in the frame has come to."""
    status = page.frame_locator("#board-frame").get_by_role("status")
    status.get_by_text("generation").wait_for(timeout=FAST_MS)
    found = re.search(r"generation (\d+)", status.inner_text())
    assert found
    return int(found[1])


def place(page: Page) -> tuple[float, float]:
    """Where the VM's memory begins and how wide it is."""
    box = page.locator(f"[data-extent={VM}]").bounding_box()
    assert box is not None
    return round(box["x"]), round(box["width"])


def shoot(page: Page, folder: Path, name: str) -> None:
    kept = Path(os.environ.get("MULTIROOT_SHOTS", "") or folder)
    kept.mkdir(parents=True, exist_ok=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=kept / f"lab-{name}.png")


def test_a_real_handoff_is_seen_in_a_browser_and_comes_back(cli: Cli, page: Page, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    with serving(cli) as address:
        page.goto(address)
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator(f"button[data-vm={VM}]")).to_contain_text("runs")
        compare(page, cli)
        press(page, "launch")
        expect(page.locator("#kernel-right")).to_have_attribute("data-state", "alive")
        compare(page, cli)
        page.locator("#board-show").click()
        before = generation(page)
        shoot(page, tmp_path, "launched")
        memory = place(page)

        press(page, "hand-over")
        expect(page.locator(f"#kernel-right button[data-vm={VM}]")).to_contain_text("runs")
        expect(page.locator("[data-fact=copied]")).to_have_text("0 bytes")
        expect(page.locator("[data-fact=gap]")).to_contain_text("ms")
        compare(page, cli)
        assert place(page) == memory
        expect(page.locator("#board-text")).to_contain_text("(root 2)")
        assert generation(page) > before
        shoot(page, tmp_path, "crossed")

        page.reload()
        expect(page.locator(f"#kernel-right button[data-vm={VM}]")).to_contain_text("runs")
        compare(page, cli)
    # The server is gone: what was last seen stays, and is not passed off as news.
    expect(page.locator("#banner")).to_contain_text("does not answer")
    port = int(address.rpartition(":")[2].partition("/")[0])
    with serving(cli, port):
        expect(page.locator("#link")).to_have_text("live")
        press(page, "abort")
        expect(page.locator(f"#kernel-left button[data-vm={VM}]")).to_contain_text("runs")
        compare(page, cli)
        held = page.locator("#held li").evaluate_all("all => all.map(each => each.dataset.held)")
        assert held
        assert "no" not in held
        shoot(page, tmp_path, "back")
