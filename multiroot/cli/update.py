# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot update`: go over from one kernel to the next with one command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from multiroot.cli.agent import agent_target, connect
from multiroot.cli.commands import Group, MayBeEmpty
from multiroot.cli.output import json_option, print_json, print_lost, print_table, say
from multiroot.cli.planning import print_sent_plan
from multiroot.cli.terms import downtime_option, join_option, terms_message, terms_options
from multiroot.units import format_size


@click.group(cls=Group, invoke_without_command=True, example="multiroot update --kernel 6.12 --cpus 2-3")
@click.option("--kernel", help="The new kernel: a lab kernel's name (6.12), or a file's path in the root.")
@click.option("--initrd", default="", help="Its initrd's path, when KERNEL is a path.")
@click.option("--cpus", default="", help="CPUs for the new root to begin with, such as 2-3.")
@click.option("--carve", default="", metavar="SIZE[@BASE]", help="Memory for it to begin with, such as 1G.")
@click.option("--append", cls=MayBeEmpty, default="", help="More kernel parameters.")
@join_option
@click.option(
    "--until", default="", metavar="STEP", help="Stop after a step; a later update goes on from there."
)
@click.option("--keep-old", is_flag=True, help="Hand all VMs over and leave the old root alive.")
@click.option("--verify", is_flag=True, help="Have the old root's memory summed up twice before it is used.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="FUNCTION",
    help="A PCI function for the new root to adopt, such as 0000:00:02.0; may be repeated. Default: all.",
)
@terms_options
@click.option(
    "--canary/--no-canary",
    default=True,
    show_default=True,
    help="Try a handoff there and back with a small VM of our own before any other VM is touched.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@json_option
@click.pass_context
def update(
    ctx: click.Context,
    /,
    kernel: str | None,
    until: str,
    keep_old: bool,
    verify: bool,
    devices: tuple[str, ...],
    downtime_limit_ms: int,
    group: int,
    preparing: int,
    order: str,
    first: tuple[str, ...],
    canary: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Start a new kernel, hand all VMs to it, and give it the whole machine.

    Steps: plan, carve, offline, load, start, join, handover, commit, retire.
    """
    if ctx.invoked_subcommand:
        return
    if not kernel:
        raise click.UsageError("say which kernel: --kernel NAME", ctx)
    if keep_old and until:
        raise click.UsageError("--keep-old is --until handover: say one of them", ctx)
    from multiroot.cli.root import launch_request
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    request = launch_request(kernel=kernel, **options)
    if dry_run:
        with connect() as channel:
            planned = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Plan(request)
        print_sent_plan(planned.plan_json, as_json)
        return
    until = "handover" if keep_old else until
    terms = terms_message(downtime_limit_ms, group, preparing, order, first)
    wanted = coordinator_pb2.UpdateRequest(
        launch=request,
        until=until,
        verify=verify,
        devices=devices,
        terms=terms,
        no_canary=not canary,
    )
    _show(_follow(lambda stub: stub.Update(wanted)), as_json)


def _show(data: dict[str, Any], as_json: bool) -> None:
    """Print how an update went."""
    if as_json:
        print_json(data)
        return
    print_table(("side", "step", "took ms >"), [(p["side"], p["name"], p["ms"]) for p in data["phases"]])
    if data.get("retired"):
        from multiroot.rpc.successor import COMPLETE

        still = data["taking_over"]
        has = ", all of it" if still in ("", *COMPLETE) else f" and is still {still}"
        say(f"root {data['root']} has the machine{has}")
    elif "lost" in data:
        say(f"everything is taken back: {_given_back(data)}")
        print_lost(data["lost"])
    else:
        say(f"the update is {data['state']}")


def _given_back(data: dict[str, Any]) -> str:
    return f"CPUs {data['cpus'] or 'none'}, {format_size(data['memory_bytes'])} of memory"


def _follow(call: Callable[[Any], Iterable[Any]]) -> dict[str, Any]:
    """Make `call`. When the old root retires by it, go on with the new root until it has taken over."""
    from multiroot.cli.calls import progress_call, released_json
    from multiroot.cli.output import Progress
    from multiroot.phases import Phase
    from multiroot.rpc import successor
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    seen: list[Phase] = []
    with connect() as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        old_root = stub.GetState(coordinator_pb2.GetStateRequest(), timeout=10).root
        progress = progress_call(
            call(stub), seen.append, wanted=["updated", "released"], look="`multiroot update abort` ends it"
        )
    result, taking_over = progress.updated, ""
    if result.retiring:
        with Progress().live() as show:

            def show_and_keep(phase: Phase) -> None:
                seen.append(phase)
                show(phase)

            taking_over = successor.wait(agent_target(), old_root, show_and_keep).taking_over
    ended: dict[str, Any] = {
        "state": result.state,
        "root": result.root,
        "retired": result.retiring,
        "taking_over": taking_over,
    }
    if progress.WhichOneof("event") == "released":
        ended = {"state": "idle", **released_json(progress.released)}
    return {
        **ended,
        "phases": [
            {
                **p.attrs,
                "side": p.side,
                "name": p.name,
                "ms": round(p.duration_ns / 1e6, 1),
                "start_ns": p.start_ns,
            }
            for p in seen
            if p.duration_ns is not None
        ],
    }


@update.command(example="multiroot update abort")
@click.option("--force", is_flag=True, help="Even if a VM does not come back; it is lost.")
@json_option
def abort(force: bool, as_json: bool) -> None:
    """Give everything back: VMs, CPUs, memory. Possible until the update is committed."""
    from multiroot.cli.calls import progress_call, released_json
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    with connect() as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        began = time.monotonic()
        events = stub.AbortUpdate(coordinator_pb2.AbortUpdateRequest(force=force))
        result = progress_call(events, wanted=["released"]).released
        seconds = round(time.monotonic() - began, 3)
    if as_json:
        print_json({**released_json(result), "seconds": seconds})
    elif result.idle:
        say("no update is under way: there is nothing to abort")
    else:
        say(f"given back in {seconds:.3f} s: {_given_back(released_json(result))}")
        print_lost(result.lost)


@update.command(example="multiroot update resume")
@click.option("--until", default="", metavar="STEP", help="Go on to this step, though less was asked for.")
@click.option("--no-canary", is_flag=True, help="Hand the VMs over without trying a VM of our own first.")
@downtime_option(None)
@json_option
def resume(until: str, no_canary: bool, downtime_limit_ms: int | None, as_json: bool) -> None:
    """Go on with an update that was cut short, from where it stands.

    One that was being taken back is taken back to the end.
    """
    from multiroot.rpc.v1 import coordinator_pb2

    limit = downtime_limit_ms or 0
    wanted = coordinator_pb2.ResumeRequest(until=until, no_canary=no_canary, downtime_limit_ms=limit)
    _show(_follow(lambda stub: stub.Resume(wanted)), as_json)


@update.command(example="multiroot update show --json")
@json_option
def show(as_json: bool) -> None:
    """How far the update is, who owns which VM, and what is to be done next.

    Also how far a new root is with taking over.
    """
    from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc

    with connect() as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        state = stub.GetState(coordinator_pb2.GetStateRequest(), timeout=10)
    data: dict[str, Any] = {
        "root": state.root,
        "state": state.state,
        "wanted": state.wanted,
        "error": state.error,
        "next": state.next,
        "lost": list(state.lost),
        "taking_over": state.taking_over,
        "taking_over_error": state.taking_over_error,
        "steps": [
            {"step": each.step, "edge": each.edge, "begin_ns": each.begin_ns, "end_ns": each.end_ns}
            for each in state.steps
        ],
        "owners": {owner.name: owner.root for owner in state.owners},
        "crash": _crash_json(state.crash) if state.HasField("crash") else None,
    }
    if as_json:
        print_json(data)
        return
    told = {**data, "lost": ", ".join(state.lost), "crash": state.crash.what}
    print_table(
        ("property", "value"), [(name, told[name]) for name in told if name not in ("steps", "owners")]
    )
    print_table(("step", "", "began", "took s >"), [_step_row(each) for each in data["steps"]])
    print_table(("VM", "root >"), list(data["owners"].items()))
    for line in (*state.crash.traces, state.crash.hint):
        if line:
            say(line)


def _crash_json(crash: Any) -> dict[str, Any]:
    return {"root": crash.root, "what": crash.what, "hint": crash.hint, "traces": list(crash.traces)}


def _step_row(step: Mapping[str, Any]) -> tuple[str, ...]:
    began = time.strftime("%F %T", time.localtime(step["begin_ns"] / 1e9))
    took = f"{(step['end_ns'] - step['begin_ns']) / 1e9:.3f}" if step["end_ns"] else ""
    return step["step"], step["edge"], began, took
