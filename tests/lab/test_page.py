# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a real machine in a real browser: all that its buttons do, and what is seen of it.

What it shows is compared with what the agents say.
"""

from __future__ import annotations

import json
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


def press(page: Page, action: str, would: str = "", loses: str = "") -> None:
    """Press a button, see what it `would` do and what it `loses`, confirm, wait until it has ended well."""
    from playwright.sync_api import expect

    button = page.locator(f"[data-action={action}]")
    expect(button).to_be_enabled()
    button.click()
    expect(page.locator("#ask-dry")).to_contain_text(would)
    loss = page.locator("#ask-loss")
    if loses:
        expect(loss).to_contain_text(loses)
    else:
        expect(loss).to_be_hidden()
    # What the button before this one said stands there until this one's command begins.
    command = page.locator("#ask-command").inner_text()
    ended = re.compile(re.escape(f"$ {command}") + r"\s[\s\S]*exit code \d")
    page.locator("#ask-yes").click()
    expect(page.locator("#said")).to_contain_text(ended, timeout=SLOW_MS)
    expect(page.locator("#said")).to_contain_text("exit code 0")


def shows_buttons(page: Page, *names: str) -> None:
    """Wait until these and no others can be pressed."""
    page.wait_for_function(
        """names => JSON.stringify([...document.querySelectorAll('#buttons button:enabled')]
            .map(each => each.dataset.action).sort()) === names""",
        arg=json.dumps(sorted(names), separators=(",", ":")),
        timeout=FAST_MS,
    )


def side(root: int) -> str:
    """The box of that root."""
    return f".kernel:has-text('root {root}')"


def compare(page: Page, cli: Cli, *, retired: bool = False) -> None:
    """What is shown is what the agents say when they are asked. After a root has `retired`, the page still
    shows the steps of that update.
    """
    from playwright.sync_api import expect

    roots: Any = cli.data("root", "list")
    vms: Any = cli.data("vm", "list")
    state: Any = cli.data("update", "show")
    for root in roots:
        box = page.locator(side(root["root"]))
        expect(box).to_have_attribute("data-state", "alive")
        expect(box).to_contain_text(root["kernel_release"])
        expect(box.locator(".cpu")).to_have_count(len(root["hardware_ids"]))
    for vm in vms:
        expect(page.locator(f"{side(vm['owner'])} button[data-vm={vm['name']}]")).to_be_visible()
        expect(page.locator(".owner-now")).to_have_text(f"(root {vm['owner']}, epoch {vm['epoch']})")
    edges = {each["step"]: each["edge"] for each in state["steps"]}
    for step, edge in edges.items():
        shown = page.locator(".step-name", has_text=re.compile(f"^{step}$")).locator("..")
        wanted = "done" if retired else edge
        expect(shown).to_have_attribute("data-edge", "" if wanted == "undone" else wanted)
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


@pytest.mark.timeout(1800)
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
        assert place(page) == pytest.approx(memory, abs=1)
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
        all_held(page)
        shoot(page, tmp_path, "back")


BESIDE = ("hand-over", "back", "abort", "crash", "retire")  # what there is to do with a second kernel
ALONE = ("launch", "next")


def owner_is(page: Page, root: int) -> None:
    from playwright.sync_api import expect

    expect(page.locator(f"{side(root)} button[data-vm={VM}]")).to_contain_text("runs")
    expect(page.locator(".owner-now")).to_contain_text(f"(root {root}, ")


@pytest.mark.timeout(3600)
def test_every_button_does_what_it_says_from_a_crash_to_the_third_generation(
    cli: Cli, page: Page, tmp_path: Path
) -> None:
    """Proves that each button tells what it would do and lose, does that, and that the page then shows what
    the agents say: a crash that the VM does not notice, the way back, a root that ends, a whole update.
    """
    from playwright.sync_api import expect

    with serving(cli) as address:
        page.goto(address)
        owner_is(page, 1)
        shows_buttons(page, *ALONE)
        memory = place(page)
        press(page, "launch", would="CPU")
        expect(page.locator("#kernel-right")).to_have_attribute("data-state", "alive")
        compare(page, cli)
        second = cli.data("root", "list")[-1]["root"]  # type: ignore[index]

        shows_buttons(page, *BESIDE)
        press(page, "crash", would=f"{VM} would go on in root 1", loses="every VM that runs in it are lost")
        expect(page.locator("#kernel-right")).to_have_attribute("data-state", "crashed")
        expect(page.locator("#headline")).to_contain_text(f"{VM} never left the old one")
        expect(page.locator(".console .splat").first).to_be_visible()
        owner_is(page, 1)
        compare_vm(page, cli)
        shoot(page, tmp_path, "crashed")
        shows_buttons(page, "abort")
        press(page, "abort", would="would go back to root 1")
        compare(page, cli)
        all_held(page)

        shows_buttons(page, *ALONE)
        press(page, "launch", would="CPU")
        third = cli.data("root", "list")[-1]["root"]  # type: ignore[index]
        assert third > second
        press(page, "hand-over", would=f"{VM}: root 1 ")
        owner_is(page, third)
        compare(page, cli)
        press(page, "back", would=f"{VM}: root {third} ")
        owner_is(page, 1)
        compare(page, cli)
        shoot(page, tmp_path, "came-back")

        press(page, "retire", would=f"{VM} would cross to root {third}", loses="There is no way back")
        owner_is(page, third)
        expect(page.locator(side(1))).to_have_attribute("data-state", "ended")
        compare(page, cli, retired=True)
        # Also in the moments in which no agent answers at the address, no tick is lost.
        all_held(page)
        assert place(page) == pytest.approx(memory, abs=1)
        shoot(page, tmp_path, "retired")

        shows_buttons(page, *ALONE)
        press(page, "next", would="CPU", loses="The old kernel ends")
        fourth = cli.data("root", "list")[-1]["root"]  # type: ignore[index]
        assert fourth > third
        owner_is(page, fourth)
        assert place(page) == pytest.approx(memory, abs=1)
        compare(page, cli, retired=True)
        all_held(page)
        shoot(page, tmp_path, "next")
        # Whoever comes later sees the same.
        page.reload()
        owner_is(page, fourth)
        compare(page, cli, retired=True)


def compare_vm(page: Page, cli: Cli) -> None:
    """The VM's owner word, also where a root has crashed that the agents do not list."""
    from playwright.sync_api import expect

    rows: Any = cli.data("vm", "list")
    for vm in rows:
        expect(page.locator(".owner-now")).to_have_text(f"(root {vm['owner']}, epoch {vm['epoch']})")


def all_held(page: Page) -> None:
    """Wait until no claim on the page has failed. A tick may be on its way still."""
    from playwright.sync_api import expect

    expect(page.locator("#held li").first).to_be_attached()
    expect(page.locator("#held li[data-held=no]")).to_have_text([])
