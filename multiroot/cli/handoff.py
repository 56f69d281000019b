# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot handoff`: hand running VMs to the other root, there or back, or stop doing so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.agent import connect
from multiroot.cli.commands import Command, Group
from multiroot.cli.output import json_option, print_json, say
from multiroot.cli.terms import preparing_option, terms_message, terms_options
from multiroot.errors import ConflictError
from multiroot.roles import OTHER

if TYPE_CHECKING:
    from multiroot.rpc.v1 import coordinator_pb2, device_pb2


class VmGroup(Group):
    """A group whose own arguments are VMs: a first word that is no subcommand is one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=VmGroup, example="multiroot handoff vm0 --to old")
def handoff() -> None:
    """Hand running VMs to the new root, or back to the old one. If anything goes wrong with one, it stays.

    `multiroot handoff VM ...` is short for `multiroot handoff start VM ...`.
    """


@handoff.command(cls=Command, example="multiroot handoff start web db --to new --group 2")
@click.argument("vms", nargs=-1, metavar="VM...")
@click.option("--all", "all_vms", is_flag=True, help="All VMs of that root.")
@click.option(
    "--to", type=click.Choice(("new", "old")), default="new", show_default=True, help="Which root takes them."
)
@terms_options
@json_option
def start(vms: tuple[str, ...], all_vms: bool, to: str, as_json: bool, **terms: Any) -> None:
    """Hand VMs over: all are prepared while they run, then they go one by one, or in groups."""
    if bool(vms) == all_vms:
        raise click.UsageError("say which VMs, or --all")
    from multiroot.cli.calls import progress_call
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    arrived: list[coordinator_pb2.HandoffResult] = []
    request = coordinator_pb2.HandoffRequest(names=vms, all=all_vms, to=to, terms=terms_message(**terms))
    try:
        # The root that gives is asked: it alone knows how to let go of a VM.
        with connect(OTHER[to]) as channel:
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            progress_call(
                stub.Handoff(request),
                wanted=["handed_off"],
                handed=arrived.append,
                empty=all_vms,
                look="`multiroot handoff cancel` has them stay",
            )
    finally:
        # Also when others stay: that is an error, and follows.
        _show(arrived, to, as_json, alone=len(vms) == 1)
    if not arrived and not as_json:
        say("there is no VM to hand over")


@handoff.command(cls=Command, example="multiroot handoff prepare --all")
@click.argument("vms", nargs=-1, metavar="VM...")
@click.option("--all", "all_vms", is_flag=True, help="All VMs of that root.")
@click.option(
    "--to", type=click.Choice(("new", "old")), default="new", show_default=True, help="Which root gets ready."
)
@preparing_option
@click.option("--undo", is_flag=True, help="End what waits for them.")
@json_option
def prepare(vms: tuple[str, ...], all_vms: bool, to: str, preparing: int, undo: bool, as_json: bool) -> None:
    """Have the other root get ready for VMs that are handed over later; they go on where they are.

    A VMM starts there for each and waits, which is most of what a handoff has to prepare. It takes memory
    until its VM has been handed over or has stopped. VMs with a device of their own, or a disk that a server
    has, are prepared when they are handed over.
    """
    if bool(vms) == all_vms:
        raise click.UsageError("say which VMs, or --all")
    from multiroot.cli.calls import progress_call
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    request = coordinator_pb2.PrepareHandoffRequest(
        names=vms, to=to, all=all_vms, preparing=preparing, undo=undo
    )
    with connect(OTHER[to]) as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        ready = list(progress_call(stub.PrepareHandoff(request), wanted=["prepared"]).prepared.names)
    if as_json:
        print_json({"prepared": ready})
    elif undo:
        say(f"nothing waits in the {to} root any more for {', '.join(vms) or 'any VM'}")
    else:
        for name in ready:
            say(f"{name}: its VMM waits in the {to} root")
        if not ready:
            say("there is no VM to prepare")


def _show(arrived: Sequence[coordinator_pb2.HandoffResult], to: str, as_json: bool, *, alone: bool) -> None:
    if as_json:
        found = [result_json(result) for result in arrived]
        if found or not alone:
            print_json(found[0] if alone else found)
        return
    for result in arrived:
        blackout = blackout_ms(result)
        say(
            f"{result.name} handed over, epoch {result.epoch}: "
            f"{result.device_state_bytes} bytes of device state, "
            f"{result.ram_bytes_copied} bytes of RAM copied, "
            + (
                f"no vCPU ran for {blackout:.1f} ms"
                if blackout is not None
                else f"the {to} root's answer was lost"
            )
        )
        if result.HasField("device"):
            moved = result.device
            say(
                f"its device went along: {moved.same} pages translate the same, "
                f"switched in {moved.switch_ns / 1e6:.2f} ms"
            )


@handoff.command(cls=Command, example="multiroot handoff cancel web")
@click.argument("vm", default="")
@json_option
def cancel(vm: str, as_json: bool) -> None:
    """Have the VM stay that is being handed over, or all of them. It goes on where it ran.

    Also those that an update hands over: it stops there, and `multiroot update resume` or `abort` goes on.
    """
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    with connect() as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        answer = stub.CancelHandoff(coordinator_pb2.CancelHandoffRequest(name=vm))
    if as_json:
        print_json({"stay": list(answer.stay), "gone": list(answer.gone)})
    else:
        for name in answer.stay:
            say(f"{name} stays")
        if not answer.stay and not answer.gone:
            say(f"{vm} is not being handed over" if vm else "nothing is being handed over")
    if answer.gone:
        raise ConflictError(f"too late, handed over: {', '.join(answer.gone)}", "see `multiroot vm list`")


def blackout_ms(result: coordinator_pb2.HandoffResult) -> float | None:
    """From the last vCPU stop to the first resume; None when the taker's answer was lost."""
    return (result.resumed_ns - result.stopped_ns) / 1e6 if result.resumed_ns else None


def result_json(result: coordinator_pb2.HandoffResult) -> dict[str, Any]:
    """The result as plain data."""
    return {
        "name": result.name,
        "epoch": result.epoch,
        "device_state_bytes": result.device_state_bytes,
        "ram_bytes_copied": result.ram_bytes_copied,
        "stopped_ns": result.stopped_ns,
        "resumed_ns": result.resumed_ns,
        "blackout_ms": blackout_ms(result),
        "device": device_json(result.device) if result.HasField("device") else None,
    }


def device_json(moved: device_pb2.DeviceMoved) -> dict[str, Any]:
    """How the VM's own device came over: its translations before and after (addresses physical)."""

    def translation(message: device_pb2.DeviceTranslation) -> dict[str, int]:
        return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}

    return {
        "before": translation(moved.before),
        "after": translation(moved.after),
        "same": moved.same,
        "elsewhere": moved.elsewhere,
        "verify_ns": moved.verify_ns,
        "switch_ns": moved.switch_ns,
    }
