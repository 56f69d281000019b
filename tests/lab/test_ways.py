# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports of the workstation that lead to guests, on a real machine's network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from cli_driver import Cli

from multiroot.demo import guests
from multiroot.lab import agents, forwards
from multiroot.lab.lab import Lab
from multiroot.rpc import client

BOARD = 80
ADDRESS = "10.77.1.44"


@pytest.fixture
def cli(lab: Lab) -> Iterator[Cli]:
    found = Cli(lab)
    yield found
    found.run("vm", "rm", "--force", "web")


def ways(cli: Cli) -> list[tuple[int, int]]:
    """The ports here, and those of the guest."""
    listed: Any = cli.data("vm", "forward", "web")
    return [(each["port"], each["guest_port"]) for each in listed]


@pytest.mark.long
def test_ways_to_a_guest_go_with_its_vm(cli: Cli) -> None:
    """Proves that a port that is in use is named and nothing is made; that `vm ssh` says what a guest lacks
    that has no SSH server; that ports are taken away by either of their numbers; and that QEMU forwards none
    to a VM that was removed, on the workstation or in its root.
    """
    run = ("vm", "run", "web", "--memory", "128M", "--address", f"{ADDRESS}/16")
    append = ("--append", f"ticker.region=4 ticker.board={BOARD}")
    cli.ok(*run, *append)
    with client.connect(cli.lab.agent_address, root="old") as old:
        agents.ticks(old, "web", 10, guests.BOOT_TIMEOUT)
    with socket.create_server((forwards.HOST, 0)) as other:
        port = other.getsockname()[1]
        cli.fails(3, f"port {port} of this computer is in use", "vm", "forward", "web", f"{port}:{BOARD}")
    assert ways(cli) == []
    cli.fails(4, f"nothing listens at port 22 of {ADDRESS}", "vm", "ssh", "web", "--patience", "0", "true")
    ssh = [(each, guest) for each, guest in ways(cli) if guest == 22]
    cli.ok("vm", "forward", "web", f"{port}:{BOARD}")
    cli.fails(3, f"leads to port {BOARD} of web already", "vm", "forward", "web", f"{port}:81")
    assert sorted(ways(cli)) == sorted([(port, BOARD), *ssh])
    with socket.create_connection((forwards.HOST, port), guests.BOOT_TIMEOUT) as web:
        web.sendall(b"GET /cells HTTP/1.1\r\nHost: web\r\n\r\n")
        assert web.recv(64).startswith(b"HTTP/"), "it leads to the guest"
    cli.fails(
        3, f"multiroot vm forward web {port}:{BOARD} --remove", "vm", "forward", "web", str(port), "--remove"
    )
    cli.ok("vm", "forward", "web", str(BOARD), "--remove")
    assert ways(cli) == ssh
    cli.ok("vm", "forward", "web", f"{port}:{BOARD}")
    cli.ok("vm", "rm", "--force", "web")
    assert forwards.listed(cli.lab.state) == []

    cli.ok(*run, *append)
    cli.ok("vm", "forward", "web", f"{port}:{BOARD}")
    cli.lab.run(["multiroot", "vm", "rm", "--force", "web"])
    cli.ok("vm", "run", "other", "--memory", "128M", "--address", f"{ADDRESS}/16")
    assert cli.data("vm", "forward", "other") == []
    assert forwards.listed(cli.lab.state) == []
    cli.ok("vm", "rm", "--force", "other")
