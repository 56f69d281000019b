# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that reboots itself, and one that panics: in one root, and in the middle of a handoff."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from cli_driver import Cli
from fail_points import held
from lab_factory import Labs

from multiroot.failpoints import FailPoint
from multiroot.lab.lab import Lab

REBOOT_S = 240  # nested emulation may take so long for a boot and a second of ticks
REBOOTED, PANICKED = "the guest rebooted", "the guest's kernel panicked"
STARVED = r"memory ran out in the guest, its console says: process \d+ \(.+\) was killed"
# From the first message on until the VMM is told to stop the guest.
MOMENTS = (FailPoint.GIVER_PREPARED, FailPoint.GIVER_READY)
MORE_MOMENTS = (FailPoint.GIVER_PREPARE, FailPoint.GIVER_TRANSFER)


@pytest.fixture(scope="module")
def lab(labs_factory: Labs) -> Lab:
    return labs_factory.fresh(machine="faults", vms=1)


@pytest.fixture
def cli(lab: Lab) -> Iterator[Cli]:
    yield Cli(lab)
    for vm in Cli(lab).data("vm", "list"):  # type: ignore[attr-defined]
        Cli(lab).ok("vm", "rm", "--force", vm["name"])


def shown(cli: Cli) -> dict[str, object]:
    data = cli.data("vm", "show", "restless")
    assert isinstance(data, dict)
    return data


def wait_notice(cli: Cli, what: str, since_ns: int) -> int:
    """When that, all of the notice, happened next after `since_ns`, on the machine-wide clock."""
    until = time.monotonic() + REBOOT_S
    while True:
        data = shown(cli)
        found = [each["at_ns"] for each in data["notices"] if re.fullmatch(what, each["what"])]  # type: ignore[attr-defined]
        if later := [at_ns for at_ns in found if at_ns > since_ns]:
            return int(later[-1])
        assert data["state"] == "running", data
        assert time.monotonic() < until, data
        time.sleep(0.5)  # nobody tells of it yet


@pytest.mark.long
@pytest.mark.parametrize("moments", [MOMENTS, MORE_MOMENTS], ids=["usual", "more"])
def test_a_guest_reboots_by_itself_also_in_the_middle_of_a_handoff(
    lab: Lab, cli: Cli, moments: tuple[FailPoint, ...]
) -> None:
    """Proves that a guest that reboots itself comes up again in the same VM, in either root; that this is
    told; that a handoff during which it does so goes on, whatever the moment; and that it still reboots
    afterwards.
    """
    cli.ok("vm", "run", "restless", "--memory", "128M", "--append", "ticker.region=4 ticker.reboot=100")
    last = wait_notice(cli, REBOOTED, 0)
    cli.ok("root", "launch", "--kernel", "6.12")
    for moment in moments:
        with cli.started("handoff", "restless") as handoff:
            with held(lab, "old", moment) as wait_until_reached:
                wait_until_reached()
                last = wait_notice(cli, REBOOTED, last)
            handoff.wait_for(b"restless handed over")
        assert shown(cli)["owner"] != 1
        last = wait_notice(cli, REBOOTED, last)
        cli.ok("handoff", "restless", "--to", "old")
    cli.ok("vm", "reset", "restless")
    wait_notice(cli, "the guest was reset", last)
    wait_notice(cli, REBOOTED, last)
    cli.ok("root", "release")
    assert lab.state.resets() == 0


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_it_is_told_when_memory_runs_out_in_a_guest(lab: Lab, cli: Cli, machine: str) -> None:
    """Proves that a VM tells it when its guest's kernel has killed a process for want of memory, though no
    device does, and that the guest goes on."""
    words = ("--memory", "96M", "--machine", machine, "--append", "ticker.region=4 ticker.starve=1")
    cli.ok("vm", "run", "restless", *words)
    wait_notice(cli, STARVED, 0)
    cli.goes_on("restless")


def test_a_guests_panic_is_told_and_the_guest_does_what_it_was_told_to_do_then(lab: Lab, cli: Cli) -> None:
    """Proves that a panic of a guest is seen, and that a guest that reboots then (panic=) goes on."""
    cli.ok("vm", "run", "restless", "--memory", "128M", "--append", "ticker.panic=100 panic=1")
    panicked = wait_notice(cli, PANICKED, 0)
    wait_notice(cli, REBOOTED, panicked)
    wait_notice(cli, PANICKED, panicked)
