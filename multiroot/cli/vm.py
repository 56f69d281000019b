# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm`: run VMs and look at them, whichever root owns them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from multiroot.cli.agent import connect
from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_file, print_json, print_table, say
from multiroot.errors import PeerLostError
from multiroot.units import format_size
from multiroot.vm.cpu_model import summary
from multiroot.vm.definition import VmDefinition
from multiroot.vm.fields import as_text, options, to_data, with_options

if TYPE_CHECKING:
    from multiroot.rpc.v1 import vm_pb2

root_option = click.option(
    "--root", default=None, metavar="ROOT", help='"old", "new" or a number; without: the agent\'s own.'
)
view_option = click.option(
    "--root",
    default=None,
    metavar="ROOT",
    help='Ask this root ("old", "new" or a number) and no other; without: the one that owns the VM.',
)


# Imported only when used: most of it is of the workstation, and no root has it.
LAZY = {
    "image": ("multiroot.cli.vm_image:image", "Make, import and find disks for guests."),
    "ssh": (
        "multiroot.cli.vm_network:ssh",
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


def definition_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of a definition that has one."""
    for option in reversed(list(options(VmDefinition))):
        command = click.option(
            option.flag,
            option.key,
            metavar=option.metavar,
            default=option.default,
            multiple=option.multiple,
            show_default=option.default not in ("", ()),
            help=option.help,
        )(command)
    return command


def _named(context: click.Context, param: click.Parameter, name: str | None) -> str | None:
    """A VM has a name, by its argument or by a file."""
    if name is None and context.params["file"] is None:
        raise click.MissingParameter("Or give a file that has one: --file FILE.", context, param, "'NAME'")
    return name


@vm.command(example="multiroot vm run vm0 --memory 512M --cpus 2 --address 10.77.1.1/16")
@click.argument("name", required=False, callback=_named)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,  # NAME is looked at after it
    help="Take the VM from this TOML file. NAME and options that are given win over it.",
)
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
    """Start the VM NAME with its RAM in the arena.

    A file for --file has the keys that `multiroot vm show NAME --toml` prints. What neither the command line
    nor the file says has its default.
    """
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
    from multiroot.vm.messages import definition_to_proto

    typed = {
        key: value
        for key, value in given.items()
        if context.get_parameter_source(key) is ParameterSource.COMMANDLINE
    }
    wanted = with_options(_definition(name, file), typed)
    # Here already: in a message, 0 means that nothing was said.
    wanted.checked()
    definition = definition_to_proto(wanted)
    with connect(root) as channel:
        started = vm_pb2_grpc.VmServiceStub(channel).Run(vm_pb2.RunVmRequest(definition=definition))
    if as_json:
        print_json(vm_json(started))
    else:
        say(f"{started.definition.name} runs in root {started.owner}, epoch {started.epoch}")


def _definition(name: str | None, file: Path | None) -> VmDefinition:
    """What options change: a VM's defaults, or what a file says."""
    if file is None:
        assert name is not None  # _named
        return VmDefinition(name)
    from multiroot.vm.definition_file import read

    return read(file, name)


@vm.command("list", example="multiroot vm list")
@view_option
@json_option
def list_vms(root: str | None, as_json: bool) -> None:
    """Every VM in the arena, whichever root owns it; with --root what that root alone knows.

    A VM whose root has ended is "lost". `multiroot vm forget` frees its memory and its name.
    """
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel:
        answer = vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest(), timeout=10)
    found = [vm_json(each) for each in answer.vms]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["name"],
            each["state"],
            each["owner"],
            each["epoch"],
            format_size(each["ram_bytes"]),
            each["cpus"] or "-",
            each["machine"] or "-",
            ", ".join(card["address"] for card in each["cards"]) or "-",
        )
        for each in found
    ]
    print_table(("name", "state", "root >", "epoch >", "RAM >", "cpus >", "machine", "address"), rows)


@vm.command(example="multiroot vm show vm0 --json")
@click.argument("name")
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
    data["cpu"] = data["cpu"] and summary(data["cpu"])
    extents = ", ".join(f"{e['size']:#x} at {e['offset']:#x}" for e in data.pop("extents"))
    stations = [("seen", f"{each['address']} on {each['mac']}") for each in data.pop("stations")]
    notices = [("notice", f"{each['at_ns'] / 1e9:.3f} s: {each['what']}") for each in data.pop("notices")]
    print_table(
        ("property", "value"),
        [
            *((name, as_text(value)) for name, value in data.items()),
            ("extents", extents),
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
@click.argument("name")
@click.option("--history", is_flag=True, help="First what was kept of its output.")
@click.option("--no-follow", is_flag=True, help="Print what was kept and end.")
@view_option
def console(name: str, history: bool, no_follow: bool, root: str | None) -> None:
    """The serial console of the VM NAME; on a terminal, Ctrl-] leaves it."""
    from multiroot.cli.vm_console import attach

    attach(name, root, history=history or no_follow, follow=not no_follow)


@vm.command(example="multiroot vm stop vm0")
@click.argument("name")
@view_option
def stop(name: str, root: str | None) -> None:
    """Power the VM NAME off at once and give its memory back."""
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel:
        vm_pb2_grpc.VmServiceStub(channel).Stop(vm_pb2.StopVmRequest(name=name), timeout=60)
    say(f"{name} stopped")


@vm.command(example="multiroot vm reset vm0")
@click.argument("name")
@view_option
def reset(name: str, root: str | None) -> None:
    """Reset the VM NAME at once, as the reset button of a machine does: its guest boots again.

    What the guest had not written out is lost.
    """
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    with connect(root) as channel:
        vm_pb2_grpc.VmServiceStub(channel).Reset(vm_pb2.ResetVmRequest(name=name), timeout=60)
    say(f"{name} was reset")


@vm.command(example="multiroot vm forget vm0")
@click.argument("name")
@root_option
def forget(name: str, root: str | None) -> None:
    """Free the memory and the name of the VM NAME, which was lost with its root.

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
        "owner": message.owner,
        "epoch": message.epoch,
        **dict(rest),
        "pid": message.pid,
        "error": message.error,
        "stations": [{"mac": each.mac, "address": each.address} for each in message.stations],
        "waits_for": list(message.waits_for),
        "notices": [{"at_ns": each.at_ns, "what": each.what} for each in message.notices],
        "extents": [{"offset": extent.offset, "size": extent.size} for extent in message.extents],
    }


def _is_known(message: vm_pb2.Vm) -> bool:
    """Whether anybody who was asked knows more of a VM than what the arena says."""
    return bool(message.definition.cpus)
