# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot handoff`: hand a running VM to the other root, there or back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.agent import connect
from multiroot.cli.commands import Command
from multiroot.cli.output import json_option, print_json

if TYPE_CHECKING:
    from multiroot.rpc.v1 import coordinator_pb2, device_pb2


@click.command(cls=Command, example="multiroot handoff vm0 --to old")
@click.argument("vm")
@click.option(
    "--to", type=click.Choice(("new", "old")), default="new", show_default=True, help="Which root takes it."
)
@json_option
def handoff(vm: str, to: str, as_json: bool) -> None:
    """Hand the running VM to the new root, or back to the old one. If anything goes wrong, it stays."""
    from multiroot.cli.calls import progress_call
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    # The root that gives is asked: it alone knows how to let go of a VM.
    with connect("old" if to == "new" else "new") as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        result = progress_call(stub.Handoff(coordinator_pb2.HandoffRequest(name=vm, to=to))).handed_off
    if as_json:
        print_json(result_json(result))
        return
    blackout = blackout_ms(result)
    click.echo(
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
        click.echo(
            f"its device went along: {moved.same} pages translate the same, "
            f"switched in {moved.switch_ns / 1e6:.2f} ms"
        )


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
