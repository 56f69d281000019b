# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk of a server outside goes with its VM from root to root, and waits for a server that is away."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs
from second_writer import cannot_write

from multiroot.demo import device, guests
from multiroot.lab import disk_image, iscsi_server, lab
from multiroot.lab.iscsi_server import IscsiServer
from multiroot.lab.nbd_server import NbdServer
from multiroot.phases import Phases
from multiroot.rpc import client
from multiroot.units import MIB
from multiroot.vm.iscsi_login import Login

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

Server = NbdServer | IscsiServer
SIZE = 128 * MIB
NOTICED_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture(params=["nbd", "iscsi"])
def server(disk: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    cache = lab.cache(Phases("workstation"))
    made: Server
    if request.param == "nbd":
        made = NbdServer(disk_image.tools(cache), disk)
    else:
        made = IscsiServer(iscsi_server.tools(cache), disk)
    with closing(made):
        made.start()
        yield made


@pytest.fixture
def cli(labs_factory: Labs) -> Iterator[Cli]:
    machine = labs_factory.fresh(vms=2)
    yield Cli(machine)
    labs_factory.discard(machine)


def shown(cli: Cli) -> Any:
    return cli.data("vm", "show", "writer")


def wait_for(cli: Cli, waits_for: list[str]) -> None:
    """Until the VM's root says that it waits for these disks."""
    until = time.monotonic() + NOTICED_S
    while shown(cli)["waits_for"] != waits_for:
        assert time.monotonic() < until, shown(cli)


def writes(cli: Cli, disk: Path, root: str, more: int) -> None:
    """So many more writes of the guest end, all of them well, and are on the disk."""
    with ExitStack() as stack:
        channel = stack.enter_context(client.connect(cli.lab.agent_address, root=root))
        before = device.parse_writes(device.output_until(channel, "writer", 0, guests.BOOT_TIMEOUT))[-1]
        output = device.output_until(channel, "writer", before.done + more, guests.BOOT_TIMEOUT)
    seen = device.parse_writes(output)[-1]
    assert seen.bad == 0
    assert device.misplaced(disk.read_bytes()[device.BLOCK :], seen) == []


def away_and_back(cli: Cli, server: Server, disk: Path, root: str, to: str) -> None:
    """The guest's writes wait for the server, the guest does not; it is not handed over meanwhile."""
    server.close()
    wait_for(cli, [server.name])
    said = f"writer waits for the server of its disk {server.name}"
    cli.fails(3, said, "handoff", "writer", "--to", to)
    assert shown(cli)["state"] == "running"
    server.start()
    wait_for(cli, [])
    writes(cli, disk, root, 200)
    *_, gone, back = [notice["what"] for notice in shown(cli)["notices"]]
    assert gone.startswith(f"the server of the disk {server.name} is gone")
    assert back == f"the server of the disk {server.name} is back"


def back_without_its_disk(cli: Cli, server: IscsiServer, disk: Path) -> None:
    """The server lets initiators in again before it knows of its disk, and refuses what the guest wants."""
    server.close()
    server.start_without_disk()
    until = time.monotonic() + NOTICED_S
    while not (told := [each["what"] for each in shown(cli)["notices"] if "failed" in each["what"]]):
        assert time.monotonic() < until, shown(cli)
    assert re.fullmatch(r"disk0: a (write|read) failed: [^;]+; the guest stands still", told[0])
    wait_for(cli, [server.name])
    cli.fails(3, "writer waits for the server of its disk", "handoff", "writer")
    server.give_disk()
    wait_for(cli, [])
    writes(cli, disk, "old", 200)


def test_a_servers_disk_goes_with_its_vm(cli: Cli, server: Server, disk: Path) -> None:
    """Proves that each write that a guest was told of is in the server's file, whatever root it went through
    and however often the server was away, and after the old root has ended; and that no other VM gets the
    disk meanwhile, in either root.
    """
    other, says = server.other
    cli.refused(2, says, "vm", "run", "other", "--disk", other)
    cli.refused(2, "there is no qcow2", "vm", "run", "other", "--disk", f"{server.source},format=qcow2")
    run = ("--memory", "128M", "--disk", server.source)
    cli.ok("vm", "run", "writer", *run, "--append", "ticker.disk=vda")
    writes(cli, disk, "old", 100)
    cannot_write(cli.lab, "old", server.blockdev())
    cli.ok("root", "launch", "--kernel", "7.x")
    away_and_back(cli, server, disk, "old", "new")
    if isinstance(server, IscsiServer):
        back_without_its_disk(cli, server, disk)
    cli.ok("handoff", "writer")
    writes(cli, disk, "new", 200)
    for root in ("old", "new"):
        taken = f"the disk {server.name} is VM writer's, in root 2"
        cli.refused(3, taken, "vm", "run", "other", *run, "--root", root)
    away_and_back(cli, server, disk, "new", "old")
    cli.ok("handoff", "writer", "--to", "old")
    writes(cli, disk, "old", 200)
    cli.ok("root", "release")
    cli.ok("update", "--kernel", "7.x")
    writes(cli, disk, "3", 200)
    cli.ok("vm", "stop", "writer")
    server.close()
    # After an update the new root goes on to take memory over.
    cli.fails(3, "does not answer: Connection refused", "vm", "run", "other", *run)
    assert cli.lab.state.resets() == 0


def test_a_target_that_wants_a_password(cli: Cli, disk: Path, tmp_path: Path) -> None:
    """Proves that a VM whose disk wants a password goes from root to root with it, that a wrong one changes
    nothing, and that neither a process's command line nor a log nor `vm show` has it in any root.
    """
    login = Login("joe", "a-word-nobody-guesses")
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"{login.user}:{login.password}\n")
    wrong.write_text(f"{login.user}:another-word\n")
    made = IscsiServer(iscsi_server.tools(lab.cache(Phases("workstation"))), disk, login)
    run = ("vm", "run", "writer", "--memory", "128M", "--append", "ticker.disk=vda", "--disk")
    with closing(made):
        made.start()
        cli.refused(2, "wants a user and a password", *run, made.source)
        cli.refused(2, "does not take that user and password", *run, f"{made.source},login={wrong}")
        cli.refused(2, "this is no user and password", *run, f"{made.source},login={disk}")
        cli.ok(*run, f"{made.source},login={right}")
        writes(cli, disk, "old", 100)
        cli.ok("root", "launch", "--kernel", "7.x")
        for to in ("new", "old"):
            cli.ok("handoff", "writer", "--to", to)
            writes(cli, disk, to, 100)
            told = cli.ok("vm", "show", "writer") + cli.ok("vm", "show", "writer", "--toml")
            for where in ("old", "new"):
                for words in (["ps", "axww"], ["sh", "-c", "cat /run/multiroot/vms/*/*.log /var/log/*"]):
                    told += cli.lab.run(words, root=where).stdout
            assert "blockdev" in told
            assert login.password not in told
        cli.ok("vm", "stop", "writer")
        cli.ok("vm", "start", "writer", "--root", "new")
        writes(cli, disk, "new", 100)
