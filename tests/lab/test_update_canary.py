# SPDX-License-Identifier: GPL-2.0-or-later
"""The canary on real kernels: a VM of our own tries the handoff, and what fails with it touches no other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.arena.layout import CANARY
from multiroot.demo import guests
from multiroot.failpoints import Action, FailPoint
from multiroot.faults.ground import APPEND
from multiroot.lab import agents
from multiroot.phase_names import PhaseName
from multiroot.rpc import client
from multiroot.rpc.v1 import failpoint_pb2, failpoint_pb2_grpc

RESTART_S = 120.0


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A lab whose agents obey orders, with one VM in the old root."""
    lab = labs_factory.fresh(kernel="6.12", machine="faults", vms=1)
    found = Cli(lab)
    found.ok("vm", "run", "steady", "--memory", "256M")
    with client.connect(lab.agent_address, root="old") as old:
        agents.ticks(old, "steady", 10, guests.BOOT_TIMEOUT)
    yield found
    labs_factory.discard(lab)


def order(cli: Cli, root: str, point: FailPoint, action: Action) -> None:
    """What is to go wrong with the canary, once."""
    with client.connect(cli.lab.agent_address, root=root) as channel:
        request = failpoint_pb2.ArmRequest(point=point, action=action, about=CANARY)
        failpoint_pb2_grpc.FailPointServiceStub(channel).Arm(request, timeout=agents.CALL_TIMEOUT_S)


def have_new_root(cli: Cli) -> None:
    """An earlier test may have left one; its agent obeys orders, too."""
    if shown(cli)["state"] == "idle":
        cli.ok("root", "launch", "--kernel", "6.12", "--append", APPEND)


def shown(cli: Cli) -> dict[str, Any]:
    """What `update show` says."""
    data = cli.data("update", "show")
    assert isinstance(data, dict)
    return data


def rows(cli: Cli) -> list[tuple[str, str, int]]:
    """All VMs of all roots, the canary, too."""
    found: Any = cli.data("vm", "list", "--all")
    return [(row["name"], row["state"], row["owner"]) for row in found]


def extents(cli: Cli) -> list[str]:
    """Whose memory is in the arena."""
    shown = json.loads(cli.lab.run(["multiroot", "arena", "show", "--json"]).stdout)["extents"]
    return [each["name"] for each in shown]


def only_steady(cli: Cli) -> None:
    """The VM never left the old root and ticks on; nothing of the canary is left in the arena."""
    assert rows(cli) == [("steady", "running", 1)]
    assert extents(cli) == [".home-steady", "steady"]
    with client.connect(cli.lab.agent_address, root="old") as old:
        seen = len(agents.ticks(old, "steady", 0, guests.BOOT_TIMEOUT).counter)
        agents.ticks(old, "steady", seen + 10, guests.BOOT_TIMEOUT)


def epoch(cli: Cli) -> int:
    data: Any = cli.data("vm", "show", "steady")
    return int(data["epoch"])


def test_the_name_is_not_a_users(cli: Cli) -> None:
    """Proves that a user's VM cannot be taken for a canary, which would be ended."""
    cli.refused(2, f"the name {CANARY} is kept", "vm", "run", CANARY, "--memory", "96M")


@pytest.mark.parametrize(
    ("root", "point", "says"),
    [
        pytest.param(
            "old",
            FailPoint.GIVER_TRANSFER,
            "the canary did not go to the new root: ",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "new", FailPoint.TAKER_LOADED, "the canary did not go to the new root: ", marks=pytest.mark.long
        ),
        ("new", FailPoint.GIVER_TRANSFER, "the canary did not come back from the new root: "),
    ],
)
def test_what_fails_with_the_canary_touches_no_vm(cli: Cli, root: str, point: FailPoint, says: str) -> None:
    """Proves that a handoff that fails, on the way there or back and in either root, fails the update with
    one line before the VM is touched; that the canary is gone then, and the new root stays joined."""
    before = epoch(cli)
    have_new_root(cli)
    order(cli, root, point, Action.RAISE)
    cli.fails(1, says, "update", "resume", "--until", "handover")
    assert epoch(cli) == before
    only_steady(cli)
    assert shown(cli)["state"] == "joined"


def test_an_agent_that_dies_with_the_canary_leaves_none(cli: Cli) -> None:
    """Proves that the canary is ended when the old root's agent dies while the canary comes back, and the new
    root has it: the next agent has it ended there, and holds nothing up by that."""
    have_new_root(cli)
    before = epoch(cli)
    order(cli, "new", FailPoint.GIVER_PREPARE, Action.PAUSE)
    with cli.started("update", "resume", "--until", "handover"):
        with client.connect(cli.lab.agent_address, root="new") as new:
            stub = failpoint_pb2_grpc.FailPointServiceStub(new)
            point = FailPoint.GIVER_PREPARE
            stub.AwaitReached(
                failpoint_pb2.AwaitReachedRequest(point=point, timeout_s=guests.BOOT_TIMEOUT),
                timeout=guests.BOOT_TIMEOUT,
            )
        assert [(name, owner) for name, _, owner in rows(cli)] == [(CANARY, 2), ("steady", 1)]
        agent = cli.lab.run(["pgrep", "-o", "-f", "/usr/bin/multirootd"]).stdout.strip()
        cli.lab.run(["kill", "-9", agent])
    until = time.monotonic() + RESTART_S
    while cli.run("root", "show", "new").returncode:
        assert time.monotonic() < until, "no agent"
    with client.connect(cli.lab.agent_address, root="new") as new:
        stub = failpoint_pb2_grpc.FailPointServiceStub(new)
        stub.Disarm(failpoint_pb2.DisarmRequest(), timeout=agents.CALL_TIMEOUT_S)
    while rows(cli) != [("steady", "running", 1)]:
        assert time.monotonic() < until, rows(cli)
        time.sleep(0.5)  # nobody tells when it is gone
    assert epoch(cli) == before + 1, "an agent raises it when it finds its VM again, and nobody else did"
    only_steady(cli)


def test_the_update_goes_on_with_the_next_canary(cli: Cli) -> None:
    """Proves that an update whose canary failed goes on with `update resume`, where the canary goes there
    and back before the VM goes; that an abort then gives everything back; and that nothing was reset."""
    have_new_root(cli)
    result: Any = cli.data("update", "resume", "--until", "handover")
    assert result["state"] == "handed-over"
    names = [phase["name"] for phase in result["phases"]]
    (canary,) = [phase for phase in result["phases"] if phase["name"] == PhaseName.CANARY]
    assert int(canary["ticks"]) > 0
    assert names.index(PhaseName.CANARY) < names.index(PhaseName.PREPARE)
    assert names.count(PhaseName.PREPARE) == 1, "the canary's own handoffs are not among those of VMs"
    assert rows(cli) == [("steady", "running", 2)]
    assert extents(cli) == [".home-steady", "steady"]
    data: Any = cli.data("update", "abort")
    assert (data["lost"], data["idle"]) == ([], False)
    only_steady(cli)
    assert cli.lab.state.resets() == 0


def test_the_canary_boots_while_the_new_root_comes_up(cli: Cli) -> None:
    """Proves that an update does not wait for the new root before it boots its canary, and that aborting it
    leaves nothing of either."""
    if shown(cli)["state"] != "idle":
        cli.ok("update", "abort")
    with cli.started("update", "--kernel", "6.12", "--append", APPEND, "--until", "handover") as update:
        until = time.monotonic() + guests.BOOT_TIMEOUT
        while (CANARY, 1) not in [(name, owner) for name, _, owner in rows(cli)]:
            assert time.monotonic() < until, "no canary"
        assert shown(cli)["state"] == "started"
        assert update.end() == 0, update.output()
    ((name, state, owner),) = rows(cli)
    assert (name, state) == ("steady", "running")
    assert owner != 1, "each new root has a number of its own, and earlier tests have had some"
    cli.ok("update", "abort")
    only_steady(cli)


@pytest.mark.long
def test_a_root_without_room_for_the_canary_says_how_to_go_without(cli: Cli) -> None:
    """Proves that a full arena fails the update with a line that names the way on, and that this is one."""
    cli.ok("vm", "run", "other", "--memory", "192M")
    cli.fails(
        1, "the canary could not be started: the arena has no free extent", "update", "--kernel", "6.12"
    )
    result: Any = cli.data("update", "resume", "--until", "handover", "--no-canary")
    assert result["state"] == "handed-over"
    roots: Any = cli.data("root", "list")
    new = max(each["root"] for each in roots)
    assert rows(cli) == [("other", "running", new), ("steady", "running", new)]
