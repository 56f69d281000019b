# SPDX-License-Identifier: GPL-2.0-or-later
"""An update that is aborted when its new root is there, and while a VM is on its way to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest
from cli_driver import Cli, Running
from fail_points import held
from lab_factory import Labs

from multiroot.demo import guests
from multiroot.failpoints import FailPoint
from multiroot.faults.ground import APPEND
from multiroot.phase_names import PhaseName
from multiroot.rpc.v1 import vm_pb2

pytestmark = pytest.mark.long

UPDATE = ("update", "--kernel", "6.12", "--append", APPEND)
CONFLICT = 3
REPORTED = 130  # ticks, of which two at least are reports


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Cli:
    """A lab whose agents obey orders, with one VM in the old root."""
    found = Cli(labs_factory.fresh(kernel="6.12", machine="faults", vms=1))
    found.ok("vm", "run", "steady", "--memory", "128M", "--append", "ticker.region=4")
    return found


def ticks(cli: Cli) -> vm_pb2.Ticks:
    """Those that the old root has seen, some of them from now on, with a report."""
    return cli.goes_on("steady", root="old", more=REPORTED)


def boot(seen: vm_pb2.Ticks) -> set[str]:
    """Which boots of the guest these are of; its memory is whole in all of them."""
    assert not any(report.bad_bytes for report in seen.reports)
    return {report.boot_id for report in seen.reports}


@contextmanager
def aborting(cli: Cli) -> Iterator[Running]:
    """`update abort` in another terminal, which the agent knows of when the body begins. A VM that has only
    been prepared is no reason to wait: then it may be over sooner than anybody can look.
    """
    with cli.started("update", "abort", "--json") as abort:
        until = time.monotonic() + guests.BOOT_TIMEOUT
        while not (shown := cli.ok("update", "show")).count("which is being aborted") and not abort.over():
            assert time.monotonic() < until, shown
        yield abort


def ended(update: Running, abort: Running) -> None:
    """Both have said how it ended, the update in one line."""
    assert (abort.end(), update.end()) == (0, CONFLICT), (abort.output(), update.output())
    assert b'"lost": []' in abort.output()
    last = [line for line in update.output().decode().splitlines() if line.startswith("multiroot: ")]
    assert len(last) == 1, update.output()
    assert last[0].startswith("multiroot: the update is being aborted")
    assert b"Traceback" not in update.output() + abort.output()


def all_is_back(cli: Cli, before: Any) -> None:
    """No new root, no canary; the old root has all CPUs and memory, and the VM, perhaps in another QEMU."""
    shown: Any = cli.data("update", "show")
    assert (shown["state"], shown["owners"]) == ("idle", {"steady": 1})
    now: Any = cli.standing()
    assert now[0] == before[0]
    for (vm,) in (now[1], before[1]):
        del vm["epoch"], vm["pid"]
    assert now[1] == before[1]
    extents = [each["name"] for each in cli.lab_data("arena", "show")["extents"]]
    assert extents == [".home-steady", "steady"]
    assert cli.lab.state.resets() == 0


def test_an_abort_after_the_new_root_has_joined_touches_no_vm(cli: Cli) -> None:
    """Proves that the VM is the very same then, its QEMU too, that its guest has missed nothing, that CPUs
    and memory are back, and that the next update works.
    """
    booted = boot(ticks(cli))
    before: Any = cli.standing()
    with ExitStack() as commands:
        with held(cli.lab, "old", FailPoint.STEP_DONE, PhaseName.JOIN) as joined:
            update = commands.enter_context(cli.started(*UPDATE))
            joined()
            abort = commands.enter_context(aborting(cli))
        ended(update, abort)
    assert cli.standing() == before, "not even the epoch"
    seen = ticks(cli)
    assert {later - earlier for earlier, later in pairwise(seen.counter)} == {1}
    assert boot(seen) == booted
    all_is_back(cli, before)
    before = cli.standing()
    cli.ok(*UPDATE, "--until", "handover")
    assert cli.data("vm", "show", "steady")["owner"] != 1  # type: ignore[index]
    cli.ok("update", "abort")
    all_is_back(cli, before)
    assert boot(ticks(cli)) == booted


@pytest.mark.parametrize(
    ("root", "point"),
    [
        ("old", FailPoint.GIVER_PREPARED),
        ("old", FailPoint.GIVER_READY),
        ("new", FailPoint.TAKER_RESUMED),
    ],
)
def test_an_abort_in_the_middle_of_a_handoff_has_the_vm_come_back(
    cli: Cli, root: str, point: FailPoint
) -> None:
    """Proves that an abort between a VM's preparing and its STOP, or just after its RESUME in the new root,
    takes all back, whether the handoff is cancelled or comes to its end before: the same guest runs in the
    old root.
    """
    booted = boot(ticks(cli))
    before: Any = cli.standing()
    with ExitStack() as commands:
        # Its agent can be told only when it is there, and the canary, which goes first, is no matter.
        with held(cli.lab, "old", FailPoint.GIVER_PREPARE, "steady") as begins:
            update = commands.enter_context(cli.started(*UPDATE))
            begins()
            on_its_way = commands.enter_context(ExitStack())
            there = on_its_way.enter_context(held(cli.lab, root, point, "steady"))
        there()
        abort = commands.enter_context(aborting(cli))
        on_its_way.close()
        ended(update, abort)
    all_is_back(cli, before)
    assert boot(ticks(cli)) == booted
