# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab`: build and run the lab machine, look into it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from multiroot import proc
from multiroot.cli.audit import audit
from multiroot.cli.commands import Group
from multiroot.cli.doctor import lab_doctor
from multiroot.cli.lab_options import LabChoice, SizeType, lab_options
from multiroot.cli.output import Progress, json_option, print_json, print_table, say, yes_or_no
from multiroot.errors import MultirootError
from multiroot.lab import boot, execution, lab_disks, state
from multiroot.lab import lab as labs
from multiroot.lab.machine import qemu_argv
from multiroot.lab.recorder import console_socket, console_text
from multiroot.lab.state import LabState
from multiroot.lab.trouble import explained
from multiroot.phases import Phases
from multiroot.units import format_cpu_list, format_size

_ANSWER_S = 2.0  # who ends a lab machine waits no longer for what was in it
Function = TypeVar("Function", bound=Callable[..., Any])
name_option = click.option("--name", default="default", show_default=True, help="Which lab.")
root_option = click.option(
    "--root", default="old", show_default=True, help="Which root: old, new or its number."
)


def machine_options(function: Function) -> Function:
    """The options of `up` alone: what of the machine's recipe to change."""
    for option in reversed((
        click.option("--kernel", default="6.12", show_default=True, help="Name, newest, or a path."),
        click.option("--vms", type=click.IntRange(1, 16), help="How many VMs the arena must hold."),
        click.option("--vm-memory", type=SizeType(), help="Memory of each VM."),
        click.option("--carve", type=SizeType(), help="Memory of the new root."),
        click.option("--cpus", type=click.IntRange(2, 64), help="CPUs of the machine."),
        click.option(
            "--disk",
            "disks",
            multiple=True,
            metavar="IMAGE|FILE",
            help="A disk that all roots see: the name of an image, or a file. A raw file is written to.",
        ),
    )):  # fmt: skip
        function = option(function)
    return function


# Imported only when used: it needs all of the client's side.
LAZY = {
    "fault": (
        "multiroot.cli.lab_fault:fault",
        "Make things go wrong in a lab machine, and see what becomes of the VM.",
    ),
    "generations": (
        "multiroot.cli.generations:generations",
        "Update N times, kernels in turn, with a VM living through all of it.",
    ),
    "soak": (
        "multiroot.cli.lab_soak:soak",
        "Hand VMs to the new root and back, many times, with guests at work.",
    ),
    "ui": (
        "multiroot.cli.lab_ui:ui",
        "Serve the page that shows the machine, its kernels and the VMs that cross, for a browser here.",
    ),
}


@click.group(cls=Group, lazy=LAZY)
def lab() -> None:
    """Build and run the lab machine."""


lab.add_command(audit)
lab.add_command(lab_doctor)


@lab.command(example="multiroot lab build")
@click.option("--refresh", is_flag=True, help="Take the newest packages of the archive.")
@click.option("--vmx", is_flag=True, help="Also an Intel machine, whose roots have no agents.")
@click.option("--vmx-whole", is_flag=True, help="Also all of `make test-vmx`: this one, and one with agents.")
@json_option
def build(refresh: bool, vmx: bool, vmx_whole: bool, as_json: bool) -> None:
    """Build everything the lab needs; what is in the cache is not built again."""
    from multiroot.lab import build as building
    from multiroot.lab import vmx as intel

    phases, progress = _phases()
    with progress.live():
        cache = labs.cache(phases)
        if refresh:
            building.forget_roots(cache)
            intel.forget_roots(cache)
        built = building.build(cache)
        if vmx or vmx_whole:
            intel.prepare(cache)
        if vmx_whole:
            intel.prepare(cache, whole=True)
    if as_json:
        print_json(
            {
                "image": str(built.image),
                "digest": built.image_digest,
                "kernels": {k.name: k.release for k in built.kernels.values()},
            }
        )
        return
    print_table(("kernel", "release"), [(kernel.name, kernel.release) for kernel in built.kernels.values()])


@lab.command(example="multiroot lab up --kernel 6.12 --vms 2 --vm-memory 512M")
@lab_options("default")
@machine_options
@click.option("--hold", is_flag=True, help="Leave it paused where it resets or powers off, for a debugger.")
@click.option("--dry-run", is_flag=True, help="Print the command that would be run, and run nothing.")
@json_option
def up(lab: LabChoice, dry_run: bool, as_json: bool, **chosen: Any) -> None:
    """Boot the lab machine and wait until its old root's agent answers."""
    phases, progress = _phases()
    options = lab.options(**chosen)
    if dry_run:
        machine, _ = labs.prepare(options, phases)
        if as_json:
            print_json({"command": qemu_argv(machine)})
        else:
            say(proc.quote(qemu_argv(machine)))
        return
    with progress.live():
        started = labs.up(options, phases)
    _show(started.state, as_json)


@lab.command(example="multiroot lab status --json")
@name_option
@json_option
def status(name: str, as_json: bool) -> None:
    """What the lab machine is and how it is doing."""
    _show(state.load(name), as_json)


@lab.command(
    "exec",
    context_settings={"ignore_unknown_options": True},
    example="multiroot lab exec --root new -- uname -r",
)
@name_option
@root_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, root: str, command: tuple[str, ...]) -> int:
    """Run COMMAND in a root; its output, input and exit code are ours."""
    stdin = None if sys.stdin.isatty() else sys.stdin.fileno()
    lab = labs.attach(name)
    with explained(lab.state), closing(lab.channel(root)) as channel:
        return execution.execute(
            channel,
            command,
            stdin=stdin,
            stdout=_writer(sys.stdout.buffer),
            stderr=_writer(sys.stderr.buffer),
        )


@lab.command(example="multiroot lab logs --root new")
@name_option
@root_option
def logs(name: str, root: str) -> None:
    """Print what a root's console said, with its time on CLOCK_MONOTONIC."""
    for line in console_text(state.load(name).folder, root).split("\n")[:-1]:
        stamp, _, text = line.partition(" ")
        say(f"{int(stamp) / 1e9:12.6f} {text.expandtabs()}")


@lab.command(example="multiroot lab console --root new")
@name_option
@click.option(
    "--root", type=click.Choice(["old", "new"]), default="old", show_default=True, help="Which root."
)
def console(name: str, root: str) -> None:
    """Join this terminal to a root's console; Ctrl-] leaves it."""
    from multiroot.lab import console as terminal

    socket = state.load_alive(name).folder / console_socket(root)
    say(f"console of the {root} root of lab {name}; Ctrl-] leaves it", err=True)
    terminal.attach(socket)


@lab.command(example="multiroot lab down --name demo")
@name_option
@click.pass_context
def down(context: click.Context, name: str) -> None:
    """End the lab machine, and all VMs with it."""
    typed = context.get_parameter_source("name") is not ParameterSource.DEFAULT
    if not typed and name not in state.names():
        say(f"lab {name} was not running")
        return
    found = state.load(name)
    vms = _running_vms(found)
    if not boot.down(found):
        say(f"lab {name} was not running")
    else:
        say(f"lab {name} ended" + (f", and {vms} VM{'s' if vms > 1 else ''} with it" if vms else ""))


def _running_vms(found: LabState) -> int:
    """How many VMs run there; 0 also if its agent does not say so at once, as when nobody waits for it."""
    if not found.alive():
        return 0
    import grpc

    from multiroot.arena.layout import CANARY
    from multiroot.rpc.client import connect
    from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc

    try:
        with connect(found.agent_address) as channel:
            stub = vm_pb2_grpc.VmServiceStub(channel)
            answer = stub.List(vm_pb2.ListVmsRequest(), timeout=_ANSWER_S)
    except (MultirootError, grpc.RpcError):
        return 0
    vms = [vm for vm in answer.vms if vm.definition.name != CANARY]
    return sum(vm.state in ("running", "paused") for vm in vms)


def _phases() -> tuple[Phases, Progress]:
    phases, progress = Phases("workstation"), Progress()
    phases.subscribe(progress)
    return phases, progress


def _writer(stream: Any) -> execution.Sink:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


def _show(found: LabState, as_json: bool) -> None:
    data = describe(found)
    if as_json:
        print_json(data)
        return
    for name in ("arena", "carve", "image"):
        data[name] = getattr(found.machine.layout, name)
    if not found.alive():
        # They would be taken for those of something that is there.
        for name in ("held", "pid", "agent"):
            del data[name]
    data = {name: yes_or_no(value) if isinstance(value, bool) else value for name, value in data.items()}
    data["ram"] = format_size(data["ram"])
    data["disks"] = "; ".join(map(_disk, data["disks"]))
    data["boots"] = "; ".join(f"{boot['outcome']} {boot['seconds']:.1f} s" for boot in data["boots"])
    print_table(("property", "value"), list(data.items()))


def _disk(disk: dict[str, str]) -> str:
    made = f", a copy that each `lab up` makes anew: {disk['copy']}" if disk["copy"] else ""
    return f"{disk['source']} from {disk['file']}{made}"


def describe(found: LabState) -> dict[str, Any]:
    """What there is to say of a lab; sizes in bytes."""
    machine = found.machine
    memory = machine.layout
    return {
        "name": machine.name,
        "running": found.alive(),
        "held": found.held(),
        "pid": found.pid,
        "kernel": machine.release,
        "accelerator": machine.accelerator,
        "cpus": machine.cpus,
        "old_cpus": format_cpu_list(machine.old_cpus),
        "ram": memory.ram,
        "arena": asdict(memory.arena),
        "carve": asdict(memory.carve),
        "carve_reserved": memory.carve_reserved,
        "image": asdict(memory.image),
        "disks": [
            {"source": source, "file": str(disk.origin), "copy": str(disk.file) if disk.copy else ""}
            for source, disk in zip(lab_disks.sources(memory), machine.disks, strict=True)
        ],
        "agent": found.agent_target,
        "resets": found.resets(),
        "boot_retries": found.retries(),
        "boots": [asdict(attempt) for attempt in found.attempts],
        "folder": str(found.folder),
    }
