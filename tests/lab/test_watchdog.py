# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's watchdog fires in the root where the guest is, and what was to be done then is done and told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

FIRES_S = 300  # 40 s after it was fed last; the rest is for a guest that boots slowly
FED = "ticker.region=4 ticker.watchdog=5"
HUNGRY = "ticker.region=120 sysctl.vm.overcommit_memory=1"
FIRED, PANICKED = "the guest's watchdog fired: ", "the guest's kernel panicked"


@pytest.fixture
def cli(labs_factory: Labs) -> Iterator[Cli]:
    found = Cli(labs_factory.fresh())
    found.ok("root", "launch", "--kernel", "6.12")
    yield found
    for vm in found.data("vm", "list"):  # type: ignore[attr-defined]
        found.ok("vm", "rm", "--force", vm["name"])
    found.ok("root", "release")


def wait(cli: Cli, name: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What `vm show` says of it as soon as that is so."""
    until = time.monotonic() + FIRES_S
    while True:
        shown: Any = cli.data("vm", "show", name)
        if done(shown):
            return dict(shown)
        assert time.monotonic() < until, shown
        time.sleep(0.5)  # nobody tells of it yet


def told(shown: dict[str, Any]) -> list[str]:
    return [each["what"] for each in shown["notices"]]


def test_a_watchdog_fires_where_the_guest_is(cli: Cli) -> None:
    """Proves that a watchdog that was started in one root fires in the root to which its guest was handed
    meanwhile, without having been fed or started there, and that the guest is reset; that it does so again
    when it was started there and the guest handed back; that another guest is powered off, and that its end
    says why; that a third gets an NMI, of which its kernel panics; that machines without one are refused; and
    that a guest that is told to panic when its memory runs out is seen to do so.
    """
    cli.refused(2, "only a q35 machine can have a watchdog", "vm", "run", "x", "--machine", "microvm",
                "--watchdog", "reset")  # fmt: skip
    common = ("--memory", "128M", "--append")
    cli.ok("vm", "run", "dog", "--watchdog", "reset", *common, FED)
    wait(cli, "dog", lambda shown: "READY" in cli.ok("vm", "console", "dog", "--no-follow"))
    cli.ok("handoff", "dog")
    after = wait(cli, "dog", lambda shown: len(told(shown)) >= 2)
    assert told(after)[:2] == [f"{FIRED}reset", "the guest rebooted"]
    assert (after["state"], after["owner"] != 1) == ("running", True)
    count = len(told(after))
    cli.ok("handoff", "dog", "--to", "old")
    back = wait(cli, "dog", lambda shown: len(told(shown)) >= count + 2)
    assert (back["state"], back["owner"], told(back)[-2:]) == ("running", 1, told(after)[:2])
    cli.ok("vm", "rm", "--force", "dog")

    cli.ok("vm", "run", "off", "--watchdog", "poweroff", *common, FED)
    off = wait(cli, "off", lambda shown: shown["state"] != "running")
    assert (off["state"], off["error"], told(off)) == ("stopped", "", [f"{FIRED}poweroff"])
    cli.ok("vm", "run", "nmi", "--watchdog", "inject-nmi", *common, f"{FED} unknown_nmi_panic")
    nmi = wait(cli, "nmi", lambda shown: len(told(shown)) >= 2)
    assert told(nmi)[:2] == [f"{FIRED}inject-nmi", PANICKED]

    cli.ok("vm", "run", "full", *common, f"{HUNGRY} sysctl.vm.panic_on_oom=1")
    full = wait(cli, "full", lambda shown: bool(told(shown)))
    assert told(full) == [PANICKED]
    said = cli.ok("vm", "console", "full", "--no-follow")
    assert "Out of memory: system-wide panic_on_oom is enabled" in said, said[-1000:]
