# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot root`: which roots there are, and the life of the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from multiroot import arch
from multiroot.cli.agent import connect, status_of
from multiroot.cli.commands import Group, MayBeEmpty
from multiroot.cli.output import json_option, print_json, print_lost, print_table, say
from multiroot.cli.planning import print_sent_plan
from multiroot.cli.terms import join_option
from multiroot.errors import MultirootError
from multiroot.units import format_size, parse_size

if TYPE_CHECKING:
    from multiroot.rpc.v1 import root_pb2


@click.group(
    cls=Group,
    lazy={
        "backtrace": (
            "multiroot.cli.root_memory:backtrace",
            "Print what the CPUs of the root NAME were doing when it ended, or are doing.",
        ),
        "dump": (
            "multiroot.cli.root_memory:dump",
            "Write the memory of the root NAME to a vmcore, for drgn, crash or gdb.",
        ),
        "drgn": (
            "multiroot.cli.root_memory:drgn",
            "Open the root NAME in drgn: alive, hanging or crashed, as it is in memory.",
        ),
    },
)
def root() -> None:
    """See the roots; start and release a new one."""


@root.command("list", example="multiroot root list --json")
@json_option
def list_roots(as_json: bool) -> None:
    """Every root that answers, and what it owns."""
    found = [status_json(status) for status in all_statuses()]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            status["root"],
            status["kernel_release"],
            ",".join(map(str, status["hardware_ids"])),
            format_mib(sum(r["size"] for r in status["memory"] if r["name"].startswith("System RAM"))),
            len(status["devices"]),
            " ".join(status["vms"]),
            f"{status['uptime_s']:.1f} s",
            status["boot_id"],
        )
        for status in found
    ]
    print_table(
        ("root >", "kernel", f"{arch.current().cpus.id_name}s", "RAM >", "PCI >", "VMs", "up >", "boot_id"),
        rows,
    )


@root.command(example="multiroot root show new")
@click.argument("name", default="old")
@json_option
def show(name: str, as_json: bool) -> None:
    """Everything the root NAME ("old", "new" or its number) says of itself."""
    data = status_json(status_of(name))
    if as_json:
        print_json(data)
        return
    print_table(
        ("property", "value"),
        [(key, value) for key, value in data.items() if not isinstance(value, list)],
    )
    print_table(
        ("kind", "owned"),
        [
            (f"CPUs ({arch.current().cpus.id_name}s)", format_list(data["hardware_ids"])),
            ("PCI", format_list(data["devices"])),
            ("VMs", format_list(data["vms"])),
        ],
    )
    print_table(
        ("start >", "size >", "memory"),
        [(f"{r['start']:#x}", format_size(r["size"]), r["name"]) for r in data["memory"]],
    )
    if data["marks"]:
        first = data["marks"][0]["at_ns"]
        print_table(
            ("mark", "s >"),
            [(m["name"], f"{(m['at_ns'] - first) / 1e9:.3f}") for m in data["marks"]],
        )
    if data["peers"]:
        print_table(
            ("peer", "root >", "state", "agent"),
            [(p["role"], p["root"], p["state"], p["address"]) for p in data["peers"]],
        )


@root.command(example="multiroot root launch --kernel 6.12 --cpus 2-3 --carve 1G")
@click.option("--kernel", required=True, help="A lab kernel's name (6.12), or a file's path in the old root.")
@click.option("--initrd", default="", help="Its initrd's path, when KERNEL is a path.")
@click.option("--cpus", default="", help="CPUs for it, such as 2-3; the planner chooses without.")
@click.option("--carve", default="", metavar="SIZE[@BASE]", help="Memory for it, such as 1G.")
@click.option("--append", cls=MayBeEmpty, default="", help="More kernel parameters.")
@join_option
@click.option(
    "--keep",
    is_flag=True,
    help="Leave one that does not come up as it is, to be looked into, until `release`.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@json_option
def launch(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Start a new root beside this one and wait until its agent has joined."""
    from multiroot.cli.calls import progress_call
    from multiroot.rpc.v1 import coordinator_pb2_grpc

    request = launch_request(**options)
    with connect("old") as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        if dry_run:
            print_sent_plan(stub.Plan(request).plan_json, as_json)
            return
        events = stub.Launch(request)
        look = "`multiroot update abort` ends it"
        result = progress_call(events, wanted=["launched"], look=look).launched
    if as_json:
        print_json({"root": result.root, "address": result.address, "start_ns": result.start_ns})
    else:
        seconds = (result.ready_ns - result.start_ns) / 1e9
        say(f"root {result.root} joined {seconds:.2f} s after its CPU was started; agent at {result.address}")


@root.command(example="multiroot root release --force")
@click.option("--force", is_flag=True, help="Even if VMs run there; they are lost.")
@json_option
def release(force: bool, as_json: bool) -> None:
    """Stop the new root and give its CPUs and memory back to the old one.

    Refused while the new root owns VMs. `multiroot update abort` hands them back first.
    """
    from multiroot.cli.calls import progress_call, released_json
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    with connect("old") as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        events = stub.Release(coordinator_pb2.ReleaseRequest(force=force))
        result = progress_call(events, wanted=["released"]).released
    if as_json:
        print_json(released_json(result))
    elif result.idle:
        say("no new root was launched: there is nothing to release")
    else:
        say(f"released: CPUs {result.cpus or 'none'}, {format_size(result.memory_bytes)} of memory")
        print_lost(result.lost)


@root.command(example="multiroot root adopt --device 0000:00:02.0")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="FUNCTION",
    help="Only this PCI function, such as 0000:00:02.0, and what has been adopted before. Default: all.",
)
def adopt(devices: tuple[str, ...]) -> None:
    """Have the new root take over the machine once the old one has ended, in whatever way.

    `multiroot update` does this by itself; this is for an old root that died, and for PCI functions that an
    update left out.
    """
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    with connect() as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        state = stub.TakeOver(coordinator_pb2.TakeOverRequest(devices=devices), timeout=10)
    say(f"root {state.root} is {state.taking_over}")


def launch_request(
    kernel: str, initrd: str, cpus: str, carve: str, append: str, timeout: int, *, keep: bool = False
) -> Any:
    """The message for these options; raises BadRequestError."""
    from multiroot.rpc.v1 import coordinator_pb2

    size, _, base = carve.partition("@")
    return coordinator_pb2.LaunchRequest(
        kernel=kernel,
        initrd=initrd,
        cpus=cpus,
        carve_size=parse_size(size) if size else 0,
        carve_base=parse_size(base) if base else 0,
        append=append,
        join_timeout_s=timeout,
        keep=keep,
    )


def all_statuses() -> list[root_pb2.RootStatus]:
    """The status of the agent's root and of each of its peers that is ready. Raises MultirootError."""
    from multiroot.rpc.border import ROOT_NAME

    first = status_of()
    ready = sorted({str(peer.root) for peer in first.peers if peer.state == "ready"})
    if strange := [name for name in ready if not ROOT_NAME.fullmatch(name)]:
        raise MultirootError(f"the agent tells of a root {strange[0]}, and there can be none", "see its log")
    return sorted([first, *map(status_of, ready)], key=lambda status: status.root)


def status_json(status: root_pb2.RootStatus) -> dict[str, Any]:
    """A status as plain data; times ns on the TSC clock, sizes in bytes."""
    return {
        "root": status.root,
        "kernel_release": status.kernel_release,
        "boot_id": status.boot_id,
        "cpus": status.cpus,
        "hardware_ids": list(status.hardware_ids),
        "uptime_s": round(status.uptime_s, 3),
        "tsc_khz": status.tsc_khz,
        "devices": list(status.devices),
        "vms": list(status.vms),
        "memory": [{"start": r.start, "size": r.size, "name": r.name} for r in status.memory],
        "marks": [{"name": mark.name, "at_ns": mark.at_ns} for mark in status.marks],
        "peers": [
            {
                "role": "parent" if peer.role == peer.ROLE_PARENT else "child",
                "root": peer.root,
                "state": peer.state,
                "address": peer.address,
                "kernel_release": peer.kernel_release,
            }
            for peer in status.peers
        ],
    }


def format_list(items: list[Any]) -> str:
    """Words for a table."""
    return " ".join(map(str, items)) or "none"


def format_mib(size: int) -> str:
    """Whole MiB: sizes of RAM are rarely round."""
    return f"{size >> 20} MiB"
