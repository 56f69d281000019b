# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm`: run VMs and look at them, whichever root owns them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.agent import connect, goes_on, lab_of_agent
from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_file, print_json, print_table, say
from multiroot.cli.vm_network import addresses_in
from multiroot.cli.vm_options import definition_options, name_argument, name_or_file, wanted
from multiroot.errors import PeerLostError
from multiroot.units import format_size
from multiroot.vm.cpu_model import summary
from multiroot.vm.definition import DIRECT
from multiroot.vm.fields import as_text, to_data

if TYPE_CHECKING:
    from multiroot.rpc.v1 import vm_pb2

LOOK = "`multiroot vm list` shows it"
POWER_OFF_S = 60  # as in multiroot/vm/lifecycle.py, which need not be loaded here

root_option = click.option(
    "--root", default=None, metavar="ROOT", help='"old", "new" or a number; without: the agent\'s own.'
)
view_option = click.option(
    "--root",
    default=None,
    metavar="ROOT",
    help='Ask this root ("old", "new" or a number) and no other; without: the one that owns the VM.',
)


# Imported only when used: much of it is of the workstation, and no root has it.
LAZY = {
    "image": ("multiroot.cli.vm_image:image", "Make, import and find disks for guests."),
    "define": ("multiroot.cli.vm_define:define", "Have the VM NAME, and do not start it."),
    "edit": ("multiroot.cli.vm_define:edit", "Change the VM NAME, which is stopped."),
    "ssh": (
        "multiroot.cli.vm_ssh:ssh",
        "Log in to the guest of the VM NAME with ssh(1), or run COMMAND there.",
    ),
    "forward": (
        "multiroot.cli.vm_network:forward",
        "Let PORT of this workstation's loopback lead to GUEST_PORT of the VM NAME in the lab.",
    ),
}


@click.group(cls=Group, lazy=LAZY)
def vm() -> None:
    """Run VMs in a root and look at them."""


@vm.command(example="multiroot vm run vm0 --memory 512M --cpus 2 --address 10.77.1.1/16")
@name_or_file
@definition_options
@root_option
@json_option
@click.pass_context
def run(
    context: click.Context,
    /,
    name: str | None,
    file: Path | None,
    root: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Have the VM NAME and start it, with its RAM in the arena.

    A file for --file has the keys that `multiroot vm show NAME --toml` prints. What neither the command line
    nor the file says has its default.
    """
    from multiroot.cli import vm_files
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
    from multiroot.vm.messages import definition_to_proto

    definition, files = vm_files.by_checksum(wanted(context, name, file, given))
    with connect(root) as channel:
        vm_files.send(channel, files)
        request = vm_pb2.RunVmRequest(definition=definition_to_proto(definition))
        with goes_on(LOOK):
            started = vm_pb2_grpc.VmServiceStub(channel).Run(request)
    _say_running(started, as_json)


@vm.command(example="multiroot vm start vm0")
@name_argument
@root_option
@json_option
def start(name: str, root: str | None, as_json: bool) -> None:
    """Start the VM NAME, which is stopped or has failed, in the root that is asked."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel, goes_on(LOOK):
        started = vm_pb2_grpc.VmServiceStub(channel).Start(vm_pb2.StartVmRequest(name=name))
    _say_running(started, as_json)


def _say_running(started: vm_pb2.Vm, as_json: bool) -> None:
    if as_json:
        print_json(vm_json(started))
    else:
        say(f"{started.definition.name} runs in root {started.owner}, epoch {started.epoch}")


@vm.command("list", example="multiroot vm list")
@click.option("--all", "with_canary", is_flag=True, help="Also the VM that an update tries first.")
@view_option
@json_option
def list_vms(root: str | None, with_canary: bool, as_json: bool) -> None:
    """Every VM in the arena, whichever root owns it, and those that are stopped; with --root what that root
    alone knows.

    A VM whose root has ended is "lost". `multiroot vm forget` frees its memory.
    """
    from multiroot.arena.layout import CANARY
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel:
        answer = vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=10)
    vms = [each for each in answer.vms if with_canary or each.definition.name != CANARY]
    found = [vm_json(each) for each in vms]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["name"],
            each["state"],
            each["owner"] or "-",
            each["epoch"] or "-",
            format_size(each["ram_bytes"]) if each["ram_bytes"] else "-",
            each["cpus"] or "-",
            each["machine"] or "-",
            ", ".join(addresses_in(message)) or "-",
        )
        for each, message in zip(found, vms, strict=True)
    ]
    print_table(("name", "state", "root >", "epoch >", "RAM >", "cpus >", "machine", "address"), rows)


@vm.command(example="multiroot vm show vm0 --json")
@name_argument
@view_option
@json_option
@click.option(
    "--toml", "as_toml", is_flag=True, help="Print a file for `vm run --file` that gives the same VM."
)
def show(name: str, root: str | None, as_json: bool, as_toml: bool) -> None:
    """Everything about the VM NAME."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    if as_json and as_toml:
        raise click.UsageError("--json and --toml exclude each other")
    with connect(root) as channel:
        found = vm_pb2_grpc.VmServiceStub(channel).Get(vm_pb2.GetVmRequest(name=name), timeout=10)
    if as_toml:
        print_file(_toml(found))
        return
    data = vm_json(found)
    if as_json:
        print_json(data)
        return
    data["ram_bytes"] = data["ram_bytes"] and format_size(data["ram_bytes"])
    if data["firmware"] not in (None, DIRECT) and data["disks"]:
        data["guest"] = None  # what is on its disk starts
    data["cpu"] = data["cpu"] and summary(data["cpu"])
    data["user_data"] = data["user_data"] and f"{len(data['user_data'].encode())} bytes"
    extents = ", ".join(f"{e['size']:#x} at {e['offset']:#x}" for e in data.pop("extents"))
    pages = ", ".join(f"{e['count']} of {format_size(e['size'])}" for e in data.pop("nested_pages"))
    stations = [("seen", f"{each['address']} on {each['mac']}") for each in data.pop("stations")]
    notices = [("notice", f"{each['at_ns'] / 1e9:.3f} s: {each['what']}") for each in data.pop("notices")]
    print_table(
        ("property", "value"),
        [
            *((name, "-" if value is None else as_text(value)) for name, value in data.items()),
            ("extents", extents),
            ("KVM's pages", pages or "-"),
            *stations,
            *notices,
        ],
    )


def _toml(message: vm_pb2.Vm) -> str:
    from multiroot.vm.definition_file import write
    from multiroot.vm.messages import definition_from_proto

    if not _is_known(message):
        name = message.definition.name
        raise PeerLostError(
            f"{name} is {message.state}: nobody who answers knows its definition",
            f"what is known of it: multiroot vm show {name}",
        )
    return write(definition_from_proto(message.definition))


@vm.command(example="multiroot vm console vm0 --history")
@name_argument
@click.option("--history", is_flag=True, help="First what was kept of its output.")
@click.option("--no-follow", is_flag=True, help="Print what was kept and end.")
@view_option
def console(name: str, history: bool, no_follow: bool, root: str | None) -> None:
    """The serial console of the VM NAME; on a terminal, Ctrl-] leaves it."""
    from multiroot.cli.vm_console import attach

    attach(name, root, history=history or no_follow, follow=not no_follow)


timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(0, 86400),
    metavar="SECONDS",
    help=f"The guest may take so long to power off (default: {POWER_OFF_S}).",
)


@vm.command(example="multiroot vm stop vm0")
@name_argument
@click.option("--force", is_flag=True, help="Power it off at once; after --timeout if that is given.")
@timeout_option
@view_option
def stop(name: str, force: bool, timeout_s: int | None, root: str | None) -> None:
    """Press the power button of the VM NAME, and wait until its guest has powered off.

    It is stopped then: only its definition is left, and `multiroot vm start` starts it again in any root.
    What is left of a VM that has failed, or was lost with its root, is freed.
    """
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    request = vm_pb2.StopVmRequest(name=name, force=force, timeout_s=timeout_s)
    with connect(root) as channel, goes_on(LOOK, "its guest may still power off"):
        vm_pb2_grpc.VmServiceStub(channel).Stop(request, timeout=_patience(timeout_s))
    say(f"{name} stopped")


@vm.command(example="multiroot vm reboot vm0")
@name_argument
@timeout_option
@view_option
def reboot(name: str, timeout_s: int | None, root: str | None) -> None:
    """Have the guest of the VM NAME power off by its power button, and start it again."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    request = vm_pb2.RebootVmRequest(name=name, timeout_s=timeout_s)
    with connect(root) as channel, goes_on(LOOK):
        vm_pb2_grpc.VmServiceStub(channel).Reboot(request, timeout=_patience(timeout_s) + 120)
    say(f"{name} rebooted")


def _patience(timeout_s: int | None) -> float:
    """How long to wait for the agent, s; it waits for the guest."""
    return 60 + (POWER_OFF_S if timeout_s is None else timeout_s)


@vm.command(example="multiroot vm pause vm0")
@name_argument
@view_option
def pause(name: str, root: str | None) -> None:
    """Have the guest of the VM NAME stand still. It does so in whatever root the VM goes to."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel, goes_on(LOOK):
        vm_pb2_grpc.VmServiceStub(channel).Pause(vm_pb2.PauseVmRequest(name=name), timeout=60)
    say(f"{name} paused")


@vm.command(example="multiroot vm resume vm0")
@name_argument
@view_option
def resume(name: str, root: str | None) -> None:
    """Have the guest of the VM NAME, which is paused, go on."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel, goes_on(LOOK):
        stub = vm_pb2_grpc.VmServiceStub(channel)
        if stub.Get(vm_pb2.GetVmRequest(name=name), timeout=10).state == "running":
            say(f"{name} runs already")
            return
        stub.Unpause(vm_pb2.UnpauseVmRequest(name=name), timeout=60)
    say(f"{name} goes on")


@vm.command("rm", example="multiroot vm rm vm0")
@name_argument
@click.option("--force", is_flag=True, help="Also if it runs: power it off at once.")
@view_option
def remove(name: str, force: bool, root: str | None) -> None:
    """Forget the VM NAME, which is stopped. Its disks stay."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    request = vm_pb2.RemoveVmRequest(name=name, force=force)
    with connect(root) as channel, goes_on(LOOK):
        vm_pb2_grpc.VmServiceStub(channel).Remove(request, timeout=60)
    say(f"{name} removed")
    _forget_ways(name)


def _forget_ways(name: str) -> None:
    """What this workstation has for a VM that is no more."""
    if (lab := lab_of_agent()) is None:
        return
    from multiroot.lab import forwards

    forwards.forget(lab, gone=[name])


@vm.command(example="multiroot vm reset vm0")
@name_argument
@view_option
def reset(name: str, root: str | None) -> None:
    """Reset the VM NAME at once, as the reset button of a machine does: its guest boots again.

    What the guest had not written out is lost.
    """
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel, goes_on(LOOK):
        vm_pb2_grpc.VmServiceStub(channel).Reset(vm_pb2.ResetVmRequest(name=name), timeout=60)
    say(f"{name} was reset")


@vm.command(example="multiroot vm forget vm0")
@name_argument
@root_option
def forget(name: str, root: str | None) -> None:
    """Free the memory of the VM NAME, which was lost with its root. It is stopped then.

    Refused while the root that owns the VM lives.
    """
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel:
        vm_pb2_grpc.VmServiceStub(channel).Forget(vm_pb2.ForgetVmRequest(name=name), timeout=10)
    say(f"{name} forgotten")


def vm_json(message: vm_pb2.Vm) -> dict[str, Any]:
    """A VM as plain data. What nobody knows of a VM is null; of a list of its parts, none."""
    from multiroot.vm.messages import definition_from_proto

    name, *rest = to_data(definition_from_proto(message.definition)).items()
    if not _is_known(message):
        known = dict(rest)["ram_bytes"]
        rest = [(key, [] if isinstance(value, tuple) else None) for key, value in rest]
        rest = [(key, known if key == "ram_bytes" else value) for key, value in rest]
    return {
        **dict([name]),
        "state": message.state,
        # A stopped one has none.
        "owner": message.owner or None,
        "epoch": message.epoch or None,
        **dict(rest),
        "pid": message.pid,
        "error": message.error,
        "stations": [{"mac": each.mac, "address": each.address} for each in message.stations],
        "waits_for": list(message.waits_for),
        "notices": [{"at_ns": each.at_ns, "what": each.what} for each in message.notices],
        "nested_pages": [{"size": each.size, "count": each.count} for each in message.nested_pages],
        "extents": [{"offset": extent.offset, "size": extent.size} for extent in message.extents],
    }


def _is_known(message: vm_pb2.Vm) -> bool:
    """Whether anybody who was asked knows more of a VM than what the arena says."""
    return bool(message.definition.cpus)
