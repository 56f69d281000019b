# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person cuts short: a VM's start by Ctrl-C, an update by an abort from another terminal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cli_driver import Cli

from multiroot.demo import guests
from multiroot.lab.lab import Lab

SMALL = ("--memory", "128M", "--append", "ticker.region=4")
BEGUN_S = 20.0
PARTS = 8  # of the time that a start takes: so many moments are tried
INTERRUPTED = 130
CONFLICT = 3


@pytest.fixture
def cli(lab: Lab) -> Iterator[Cli]:
    found = Cli(lab)
    yield found
    found.run("update", "abort", "--force")
    for vm in rows(found):
        found.run("vm", "rm", "--force", vm)


def rows(cli: Cli) -> dict[str, tuple[str, int | None]]:
    """State and owner of each VM, the canary, too."""
    listed: Any = cli.data("vm", "list", "--all")
    return {vm["name"]: (vm["state"], vm["owner"]) for vm in listed}


def settled(cli: Cli, *, asked: bool) -> dict[str, tuple[str, int | None]]:
    """The same once nothing is being started; `asked`: the agent may have been asked, and not begun yet."""
    last = time.monotonic() + guests.BOOT_TIMEOUT
    seen_by = time.monotonic() + (BEGUN_S * cli.lab.state.machine.slowness if asked else 0)
    while True:
        found = rows(cli)
        starting = any(state == "starting" for state, _ in found.values())
        # Nobody tells of a request that never came.
        if not starting and (found or time.monotonic() > seen_by):
            return found
        assert time.monotonic() < last, found


def extents(cli: Cli) -> list[str]:
    """Whose memory is in the arena."""
    return [each["name"] for each in cli.lab_data("arena", "show")["extents"]]


def vmms(cli: Cli) -> int:
    """How many QEMUs run in the old root."""
    return len(cli.lab.run(["pgrep", "-x", "qemu-system-x86"]).stdout.split())


@pytest.mark.long
def test_who_leaves_a_start_leaves_a_vm_or_none(cli: Cli) -> None:
    """Proves that after Ctrl-C at any moment of `vm run` there is a VM whose guest runs, or none and nothing
    of it: no memory, no QEMU; that the command has said which it may be; and that the name can be had again.
    """
    began = time.monotonic()
    cli.ok("vm", "run", "whole", *SMALL)
    took = time.monotonic() - began
    cli.ok("vm", "rm", "--force", "whole")
    seen = set()
    for part in range(PARTS):
        with cli.started("vm", "run", "cut", *SMALL) as run:
            time.sleep(took * part / PARTS)  # any moment is a good one
            run.interrupt()
            code = run.end()
        said = run.output().decode()
        found = settled(cli, asked="the agent goes on with it" in said)
        if code == -signal.SIGINT:
            # It was Python still, and no command of ours.
            assert found == {}, said
            continue
        assert code in (0, INTERRUPTED), said
        assert "Traceback" not in said
        if found:
            assert found == {"cut": ("running", 1)}, said
            assert code == 0 or "the agent goes on with it" in said, said
            assert (vmms(cli), extents(cli)) == (1, [".home-cut", "cut"]), said
            cli.goes_on("cut", root="old")
            cli.ok("vm", "rm", "--force", "cut")
        assert (rows(cli), extents(cli), vmms(cli)) == ({}, [], 0), said
        seen.add((code, bool(found)))
    assert (INTERRUPTED, True) in seen, "no moment of the start itself was met"
    cli.ok("vm", "run", "cut", *SMALL)
    cli.goes_on("cut", root="old")
    assert cli.lab.state.resets() == 0


@pytest.mark.long
@pytest.mark.parametrize(
    "after",
    ["offline", "plan", "load", "start"],
)
def test_an_update_is_aborted_from_another_terminal(cli: Cli, after: str) -> None:
    """Proves that `update abort` ends an update that is under way and gives everything back, CPUs, memory and
    the VM, whose guest runs on, to the root that had them; and that both commands say so.
    """
    cli.ok("vm", "run", "steady", *SMALL)
    cli.goes_on("steady", root="old")
    before: Any = cli.standing()
    with cli.started("update", "--kernel", "6.12") as update:
        update.wait_for(f": {after}".encode())
        aborted: Any = cli.data("update", "abort")
        code = update.end()
    said = update.output().decode()
    assert (aborted["lost"], aborted["idle"], code) == ([], False, CONFLICT), said
    assert "the update is being aborted" in said
    assert "Traceback" not in said
    shown: Any = cli.data("update", "show")
    assert (shown["state"], shown["owners"]) == ("idle", {"steady": 1}), said
    roots, vms = before
    now_roots, now_vms = cli.standing()  # type: ignore[misc]
    assert now_roots == roots
    for vm in (*vms, *now_vms):
        # It may have been there and back.
        del vm["epoch"]
    assert now_vms == vms
    assert (vmms(cli), extents(cli)) == (1, [".home-steady", "steady"])
    cli.goes_on("steady", root="old")
    assert cli.lab.state.resets() == 0
