# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm forward`, and where a guest is on its network."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from multiroot.cli.agent import connect, lab_of_agent
from multiroot.cli.commands import Command
from multiroot.cli.output import json_option, print_json, print_table, say
from multiroot.errors import BadRequestError, ConflictError

if TYPE_CHECKING:
    from multiroot.lab.forwards import Forward
    from multiroot.lab.state import LabState
    from multiroot.rpc.v1 import vm_pb2

MOST = 65535


@click.command(cls=Command, example="multiroot vm forward web 8080:80")
@click.argument("name")
@click.argument("ports", metavar="[PORT:]GUEST_PORT", required=False)
@click.option(
    "--remove",
    is_flag=True,
    help="Take away what leads to GUEST_PORT; with PORT that one alone. Open connections go on.",
)
@json_option
def forward(name: str, ports: str | None, remove: bool, as_json: bool) -> None:
    """Let PORT of this workstation's loopback lead to GUEST_PORT of the VM NAME in the lab.

    Without PORT a free one is taken. Without either, those are shown that there are. A connection goes on
    while the VM changes roots, and while the machine does. When the VM is removed, its ports lead nowhere.
    """
    lab = lab_of_agent()
    if lab is None:
        raise BadRequestError(
            "only a lab's guests are reached by ports of another computer",
            f"{name} has an address of its own on its network: {address_of(name)}",
        )
    from multiroot.lab import forwards

    tidy(lab)
    vm = find_vm(name)
    if ports is None or remove:
        known = [each for each in forwards.listed(lab) if each.vm == name or each.address == address_in(vm)]
    if ports is None:
        if remove:
            raise click.UsageError("Say which: GUEST_PORT, or PORT:GUEST_PORT.")
        _print(known, as_json)
        return
    port, guest_port = parse_ports(ports)
    if not remove:
        _print([forwards.add(lab, address_of(name), guest_port, port, vm=name)], as_json)
        return
    gone = [each for each in known if each.guest_port == guest_port and port in (0, each.port)]
    if not gone:
        raise _leads_nowhere(name, port, guest_port, known)
    for each in gone:
        forwards.remove(lab, each)
    _print(gone, as_json) if as_json else say(
        f"port {', '.join(str(each.port) for each in gone)} of this computer leads nowhere now"
    )


def _leads_nowhere(name: str, port: int, guest_port: int, known: Sequence[Forward]) -> ConflictError:
    """None of those that are known is meant; perhaps one of them by its other number."""
    here = f"port {port} of this computer leads" if port else "no port of this computer leads"
    told = f"{here}{' not' if port else ''} to port {guest_port} of {name}"
    quoted = shlex.quote(name)
    near = [each for each in known if each.port in (port, guest_port) or each.guest_port == guest_port]
    if not near:
        return ConflictError(told, f"what does: multiroot vm forward {quoted}")
    meant = near[0]
    return ConflictError(
        told,
        f"port {meant.port} leads to port {meant.guest_port}: "
        f"multiroot vm forward {quoted} {meant.port}:{meant.guest_port} --remove",
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


def find_vm(name: str) -> vm_pb2.Vm:
    """What the agent says of a VM."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect() as channel:
        return vm_pb2_grpc.VmServiceStub(channel).Get(vm_pb2.GetVmRequest(name=name), timeout=10)


def address_of(name: str) -> str:
    """The address that the guest of a VM uses on its network; raises ConflictError if none is known."""
    found = find_vm(name)
    if address := address_in(found):
        return address
    if found.state == "stopped":
        raise ConflictError(f"{name} does not run, it is stopped", f"start it: multiroot vm start {name}")
    raise ConflictError(
        f"no address of {name} is known yet",
        f"has it booted, and does it ask for one? multiroot vm console {name}",
    )


def tidy(lab: LabState) -> None:
    """Take away what a lab still has for VMs that are no more; who removes one inside a root can't."""
    from multiroot.lab import forwards
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect() as channel:
        answer = vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=10)
    forwards.forget(lab, there={vm.definition.name for vm in answer.vms})


def addresses_in(vm: vm_pb2.Vm) -> list[str]:
    """What each card was last seen to use, or was told to use; of one of which nothing is known, nothing."""
    seen = {each.mac: each.address for each in vm.stations}
    found = []
    for card in vm.definition.cards:
        used = seen.get(card.mac, "")
        # What it was told has its prefix length, too.
        same = card.address.partition("/")[0] == used
        found.append(card.address if same or not used else used)
    return [address for address in found if address]


def address_in(vm: vm_pb2.Vm) -> str:
    """The first of them, without its prefix length; "" if none is known."""
    for address in addresses_in(vm):
        # What agents say may be anything.
        with suppress(ValueError):
            return str(ipaddress.IPv4Interface(address).ip)
    return ""
