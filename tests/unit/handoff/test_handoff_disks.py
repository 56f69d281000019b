# SPDX-License-Identifier: GPL-2.0-or-later
"""Handoffs of a VM with a disk of a server, which either root may not reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiroot.errors import ConflictError
from multiroot.units import MIB
from multiroot.vm import disk_servers, iscsi, nbd
from multiroot.vm.disk import Server, parse_disks
from multiroot.vm.host import Host
from multiroot.vm.served import Export, ServerGoneError

from .harness import SMALL, Root, assert_runs_only_in, hand

Roots = tuple[Root, Root]
DISKS = ("nbd://192.0.2.1:10809/d", "iscsi://192.0.2.1:3260/iqn.2026-11.org.example:d/1")


@pytest.fixture(params=DISKS, ids=["nbd", "iscsi"])
def disk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What no one answers for: "giver", "taker". The server is there else."""
    found: set[str] = set()

    def missing(pid: int, servers: set[Server]) -> set[Server]:
        return set(servers) if "giver" in found else set()

    def reach(server: Server, *_: object) -> None:
        if "taker" in found:
            raise ServerGoneError(f"the server of the disk {server} does not answer: No route to host")

    for spoken in (nbd, iscsi):
        look = Export(MIB, read_only=False, head=bytes(4096))
        monkeypatch.setattr(spoken, "look", lambda *_, look=look: look)
        monkeypatch.setattr(spoken, "reach", reach)
    monkeypatch.setattr(disk_servers, "missing", missing)
    return found


async def start(root: Root, disk: str) -> None:
    await root.manager.run(replace(SMALL, disks=parse_disks([disk])))
    await root.ticks(20)


async def test_it_goes_there_and_back(roots: Roots, gone: set[str], disk: str) -> None:
    giver, taker = roots
    await start(giver, disk)
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)
    await hand(taker, giver)
    await assert_runs_only_in(giver, taker)


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("giver", "vm0 waits for the server of its disk {}"),
        ("taker", "the server of the disk {} does not answer: No route to host"),
    ],
)
async def test_a_vm_whose_server_is_not_reached_stays(
    roots: Roots, gone: set[str], disk: str, side: str, words: str
) -> None:
    giver, taker = roots
    await start(giver, disk)
    gone.add(side)
    with pytest.raises(ConflictError, match=words.format(disk)):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)
    assert not taker.manager.all()
    gone.clear()
    await hand(giver, taker)
    await assert_runs_only_in(taker, giver)


async def test_a_server_that_goes_while_the_taker_prepares_is_noticed(
    roots: Roots, gone: set[str], disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the guest stops: later its VMM would wait for the server."""
    giver, taker = roots
    await start(giver, disk)

    def taken_away(self: Host, definition: object) -> None:
        gone.add("giver")

    monkeypatch.setattr(Host, "check_servers", taken_away)
    with pytest.raises(ConflictError, match="vm0 waits for the server"):
        await hand(giver, taker)
    await assert_runs_only_in(giver, taker)
