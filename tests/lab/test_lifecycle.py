# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM outlives its process, its agent and its root, on real kernels and with a real guest's power button."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from cli_driver import Cli

from multiroot.demo import guests
from multiroot.lab.lab import Lab
from multiroot.units import MIB

STOP_S = 60  # the guest needs a tick; the rest is for a computer that is slow
SMALL = ("--memory", "128M", "--append", "ticker.region=4")


@pytest.fixture
def cli(lab: Lab) -> Iterator[Cli]:
    found = Cli(lab)
    yield found
    for vm in rows(found):
        found.run("vm", "rm", "--force", vm)
    found.run("root", "release", "--force")


def rows(cli: Cli) -> dict[str, tuple[str, int | None]]:
    """State and owner of each VM."""
    listed: Any = cli.data("vm", "list")
    return {vm["name"]: (vm["state"], vm["owner"]) for vm in listed}


def extents(cli: Cli) -> list[str]:
    return [each["name"] for each in cli.lab_data("arena", "show")["extents"]]


def restart_agent(cli: Cli) -> None:
    """As after a crash of it; back when the next one answers."""
    first = cli.lab.run(["pgrep", "-o", "-f", "/usr/bin/multirootd"]).stdout.strip()
    cli.lab.run(["kill", "-9", first])
    until = time.monotonic() + guests.BOOT_TIMEOUT
    while cli.run("root", "show", "new").returncode:
        assert time.monotonic() < until, "no agent, or it does not know its new root any more"


@pytest.mark.long
def test_a_vm_outlives_its_process_its_agent_and_its_root(lab: Lab, cli: Cli) -> None:
    """Proves that a guest powers off when its button is pressed, on both machines, and that only its
    definition is left then, which any root starts; that a VM that is paused stays so when it is handed over
    and when its agent is killed, and goes on afterwards; and that nothing is left of one that is removed.
    """
    cli.ok("vm", "define", "web", *SMALL)
    cli.ok("vm", "define", "tiny", "--machine", "microvm", *SMALL)
    assert rows(cli) == {"tiny": ("stopped", None), "web": ("stopped", None)}
    assert extents(cli) == [".home-web", ".home-tiny"]
    cli.refused(3, "already a VM web (stopped)", "vm", "run", "web")
    cli.ok("vm", "start", "tiny")
    cli.refused(3, "already a VM tiny (running)", "vm", "start", "tiny")
    cli.ok("vm", "start", "web")
    cli.goes_on("tiny", root="old")
    assert cli.ok("vm", "stop", "tiny", "--timeout", str(STOP_S)) == "tiny stopped\n"
    cli.goes_on("web", root="old")
    cli.ok("vm", "pause", "web")
    cli.fails(3, "web is paused", "vm", "stop", "web")

    cli.ok("root", "launch", "--kernel", "6.12")
    cli.ok("handoff", "web")
    new = rows(cli)["web"][1]
    assert new != 1
    assert rows(cli) == {"tiny": ("stopped", None), "web": ("paused", new)}
    cli.fails(3, "web came here paused and has not run since", "handoff", "web", "--to", "old")
    cli.ok("vm", "resume", "web")
    cli.goes_on("web", root="new")
    cli.ok("vm", "pause", "web")
    cli.ok("handoff", "web", "--to", "old")
    restart_agent(cli)
    assert rows(cli) == {"tiny": ("stopped", None), "web": ("paused", 1)}
    cli.ok("vm", "resume", "web")
    cli.goes_on("web", root="old")
    cli.ok("handoff", "web")
    assert rows(cli)["web"] == ("running", new)
    cli.refused(3, "web is running", "vm", "edit", "web", "--memory", "160M")
    assert cli.ok("vm", "stop", "web", "--timeout", str(STOP_S)) == "web stopped\n"

    cli.ok("vm", "edit", "web", "--memory", "160M")
    cli.ok("vm", "start", "web")
    cli.ok("vm", "start", "tiny", "--root", "new")
    assert rows(cli) == {"tiny": ("running", new), "web": ("running", 1)}
    cli.goes_on("web", root="old")
    cli.goes_on("tiny", root="new")
    shown: Any = cli.data("vm", "show", "web")
    assert [each["size"] for each in shown["extents"]] == [160 * MIB]
    cli.refused(3, "web is running", "vm", "rm", "web")
    for name in ("web", "tiny"):
        cli.ok("vm", "rm", "--force", name)
    assert (rows(cli), extents(cli)) == ({}, [])
    assert lab.state.resets() == 0
