# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm ssh` and `vm forward`: the ways to what a guest serves on its network."""

from __future__ import annotations

import ipaddress
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from multiroot import proc
from multiroot.cli.agent import agent_target, connect
from multiroot.cli.commands import Command
from multiroot.cli.output import json_option, print_json, print_table, say
from multiroot.errors import BadRequestError, ConflictError

if TYPE_CHECKING:
    from multiroot.lab.forwards import Forward
    from multiroot.lab.state import LabState
    from multiroot.rpc.v1 import vm_pb2

SSH = 22
MOST = 65535


@click.command(
    cls=Command, example="multiroot vm ssh vm0 -- uname -r", context_settings={"ignore_unknown_options": True}
)
@click.argument("name")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--user", "-l", default="root", show_default=True, help="Whom to log in as.")
@click.option(
    "--identity",
    "-i",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The private key to log in with.",
)
def ssh(name: str, words: tuple[str, ...], user: str, identity: Path | None) -> None:
    """Log in to the guest of the VM NAME with ssh(1), or run COMMAND there.

    The session goes on while the VM changes roots. Ends with the exit code of ssh.
    """
    address = address_of(name)
    argv = [*_way_to(address, name), "-l", user, *(["-i", str(identity)] if identity else []), *words]
    if not proc.find("ssh"):
        raise BadRequestError("there is no ssh here", "apt-get install openssh-client")
    proc.become(argv)


def _way_to(address: str, name: str) -> list[str]:
    """The ssh command up to its options. A guest is known by its name: its port differs from lab to lab."""
    lab = _lab()
    if lab is None:
        from multiroot.net import namespace

        return [*namespace.EXEC, "ssh", "-o", f"HostKeyAlias={name}", address]
    from multiroot.lab import forwards

    made = forwards.add(lab, address, SSH)
    known = lab.folder / "known_hosts"
    options = (f"HostKeyAlias={name}", f"UserKnownHostsFile={known}", "StrictHostKeyChecking=accept-new")
    return ["ssh", "-p", str(made.port), *(word for each in options for word in ("-o", each)), forwards.HOST]


@click.command(cls=Command, example="multiroot vm forward web 8080:80")
@click.argument("name")
@click.argument("ports", metavar="[PORT:]GUEST_PORT", required=False)
@click.option("--remove", is_flag=True, help="Take this way away; connections that are open go on.")
@json_option
def forward(name: str, ports: str | None, remove: bool, as_json: bool) -> None:
    """Let PORT of this workstation's loopback lead to GUEST_PORT of the VM NAME in the lab.

    Without PORT a free one is taken. Without either, those are shown that there are. A connection goes on
    while the VM changes roots, and while the machine does.
    """
    lab = _lab()
    address = address_of(name)
    if lab is None:
        raise BadRequestError(
            "only a lab's guests are reached by ports of another computer",
            f"{name} has an address of its own on its network: {address}",
        )
    from multiroot.lab import forwards

    known = [each for each in forwards.listed(lab) if each.address == address]
    if ports is None:
        if remove:
            raise click.UsageError("Say which: PORT:GUEST_PORT.")
        _print(known, as_json)
        return
    port, guest_port = parse_ports(ports)
    if not remove:
        _print([forwards.add(lab, address, guest_port, port)], as_json)
        return
    gone = [each for each in known if each.guest_port == guest_port and port in (0, each.port)]
    if not gone:
        raise ConflictError(
            f"nothing leads to port {guest_port} of {name}", f"multiroot vm forward {shlex.quote(name)}"
        )
    for each in gone:
        forwards.remove(lab, each)
    _print(gone, as_json) if as_json else say(
        f"port {', '.join(str(each.port) for each in gone)} leads nowhere now"
    )


def parse_ports(text: str) -> tuple[int, int]:
    """Port here, 0 for any, and port of the guest; raises BadRequestError for other words."""
    here, colon, there = text.rpartition(":")
    numbers = [
        int(word) if word.isascii() and word.isdigit() else -1
        for word in ((here, there) if colon else (there,))
    ]
    if not all(1 <= number <= MOST for number in numbers):
        raise BadRequestError(f"not ports: {text!r}", "write them like 8080:80, or 80 for any port here")
    return (numbers[0], numbers[1]) if colon else (0, numbers[0])


def _print(forwards: list[Forward], as_json: bool) -> None:
    rows = [(f"127.0.0.1:{each.port}", f"{each.address}:{each.guest_port}") for each in forwards]
    if as_json:
        print_json(
            [{"port": each.port, "address": each.address, "guest_port": each.guest_port} for each in forwards]
        )
    elif rows:
        print_table(("here", "guest"), rows)
    else:
        say("no port leads there")


def address_of(name: str) -> str:
    """The address that the guest of a VM uses on its network; raises ConflictError if none is known."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect() as channel:
        found = vm_pb2_grpc.VmServiceStub(channel).Get(vm_pb2.GetVmRequest(name=name), timeout=10)
    if address := address_in(found):
        return address
    if found.state == "stopped":
        raise ConflictError(f"{name} does not run, it is stopped", f"start it: multiroot vm start {name}")
    raise ConflictError(
        f"no address of {name} is known yet",
        f"has it booted, and does it ask for one? multiroot vm console {name}",
    )


def address_in(vm: vm_pb2.Vm) -> str:
    """What it was last seen to use, card by card, or was told to use; "" if nothing is known."""
    seen = {each.mac: each.address for each in vm.stations}
    for card in vm.definition.cards:
        # What agents say may be anything.
        with suppress(ValueError):
            return str(ipaddress.IPv4Interface(seen.get(card.mac) or card.address).ip)
    return ""


def _lab() -> LabState | None:
    """The lab whose agent commands talk to; None if that is a root's own."""
    target = agent_target().target
    if target.startswith("unix:"):
        return None
    from multiroot.lab.state import at

    return at(target)
