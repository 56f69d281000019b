# SPDX-License-Identifier: GPL-2.0-or-later
"""A new root that writes nonsense into all memory it shares: the old root goes on, and so do its VMs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import guests
from multiroot.lab import agents
from multiroot.lab.recorder import console_text
from multiroot.rpc import client
from multiroot.verdict.findings import find
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.ticks import continuity

SCRIBBLE = Path(__file__).parent / "guest/scribble.py"
SEED, SECONDS = 20261127, 4
REPORTED = 130  # ticks; among so many is a report of the guest
WAIT_S = 240


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A lab with a VM in the old root, and a new root beside it."""
    lab = labs_factory.fresh(kernel="6.12", vms=2)
    found = Cli(lab)
    found.ok("vm", "run", "steady", "--memory", "256M")
    found.ok("root", "launch", "--kernel", "6.12")
    yield found
    labs_factory.discard(lab)


def check_count(cli: Cli) -> None:
    """The count goes on unbroken in the old root, and the guest has told of its boot and its memory."""
    with client.connect(cli.lab.agent_address, root="old") as old:
        seen = len(agents.ticks(old, "steady", 0, guests.BOOT_TIMEOUT).counter)
        all_ticks = agents.ticks(old, "steady", seen + REPORTED, guests.BOOT_TIMEOUT)
    told = continuity(ticks_from_proto(all_ticks).ticks)
    assert told
    assert told.unbroken, told


@pytest.mark.long
def test_nothing_a_new_root_writes_into_shared_memory_disturbs_the_old_one(cli: Cli) -> None:
    """Proves that the old root's kernel and agent take any bytes in control page, console and link rings, and
    any number of events: no warning, no stall, the agent answers all the while, its VM ticks on, the new root
    can be ended, and the next one takes the VM."""
    check_count(cli)
    cli.lab.run(["sh", "-c", "cat /dev/multiroot-console >/dev/null 2>&1 &"])
    begin = 'echo "$1" >/tmp/it.py; setsid python3 /tmp/it.py "$2" "$3" >/tmp/it.log 2>&1 </dev/null &'
    arguments = [SCRIBBLE.read_text(), str(SEED), str(SECONDS)]
    started = cli.lab.run(["sh", "-c", begin, "sh", *arguments], root="new")
    assert started.returncode == 0, started.stderr
    until = time.monotonic() + WAIT_S
    while "mark scribbled" not in console_text(cli.lab.state.folder, "new"):
        assert time.monotonic() < until, "the new root did not get to the end of it"
        cli.ok("root", "show", "old")
    log = cli.lab.run(["dmesg"]).stdout
    assert not [each.headline for each in find(log.splitlines(), "old")]
    assert "the peer's ring is corrupt" in log, "it was not reached"
    check_count(cli)

    cli.ok("root", "release")
    cli.ok("root", "launch", "--kernel", "6.12")
    for to in ("new", "old"):
        cli.ok("handoff", "steady", "--to", to)
    check_count(cli)
    assert cli.lab.state.resets() == 0
