# SPDX-License-Identifier: GPL-2.0-or-later
"""Handoffs of a VM with a disk of a server, which either root may not reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiroot.errors import ConflictError
from multiroot.units import MIB
from multiroot.vm import disk_servers, nbd
from multiroot.vm.disk import NbdServer, parse_disks
from multiroot.vm.host import Host
from multiroot.vm.nbd import Export, ServerGoneError

from .harness import SMALL, Root, assert_runs_only_in, hand

Roots = tuple[Root, Root]
DISK = "nbd://192.0.2.1:10809/d"


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What no one answers for: "giver", "taker". The server is there else."""
    found: set[str] = set()

    def missing(pid: int, servers: set[NbdServer]) -> set[NbdServer]:
        return set(servers) if "giver" in found else set()

    def reach(server: NbdServer) -> None:
        if "taker" in found:
            raise ServerGoneError(f"the server of the disk {server} does not answer: No route to host")

    monkeypatch.setattr(nbd, "look", lambda server, head: Export(MIB, read_only=False, head=bytes(head)))
    monkeypatch.setattr(nbd, "reach", reach)
    monkeypatch.setattr(disk_servers, "missing", missing)
    return found


async def start(root: Root) -> None:
    await root.manager.run(replace(SMALL, disks=parse_disks([DISK])))
    await root.ticks(20)


async def test_it_goes_there_and_back(roots: Roots, gone: set[str]) -> None:
    giver, taker = roots
    await start(giver)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)
    await hand(taker, giver)
    await assert_runs_only_in(giver, taker)


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("giver", f"vm0 waits for the server of its disk {DISK}"),
        ("taker", f"the server of the disk {DISK} does not answer: No route to host"),
    ],
)
async def test_a_vm_whose_server_is_not_reached_stays(
    roots: Roots, gone: set[str], side: str, words: str
) -> None:
    giver, taker = roots
    await start(giver)
    gone.add(side)
    with pytest.raises(ConflictError, match=words):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)
    assert not taker.manager.all()
    gone.clear()
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_a_server_that_goes_while_the_taker_prepares_is_noticed(
    roots: Roots, gone: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the guest stops: later its VMM would wait for the server."""
    giver, taker = roots
    await start(giver)

    def taken_away(self: Host, definition: object) -> None:
        gone.add("giver")

    monkeypatch.setattr(Host, "check_servers", taken_away)
    with pytest.raises(ConflictError, match="vm0 waits for the server"):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)
