# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab soak`: many handoffs in a row in a lab machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from multiroot.cli.bench_run import parse_machines
from multiroot.cli.commands import Command
from multiroot.cli.lab_options import LabChoice, lab_options
from multiroot.cli.output import json_option, print_json, print_table, say, shown_phases
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.cli.points import PointsChoice, points_options
from multiroot.faults import ground
from multiroot.faults.soak import VM_MEMORY, Seen, Soak, busy_vms
from multiroot.lab import lab as labs

TELL_EVERY = 50


@click.command(cls=Command, example="multiroot lab soak --handoffs 1000 --output soak.jsonl")
@lab_options("soak")
@click.option("--handoffs", type=click.IntRange(1), default=1000, show_default=True, help="How many.")
@click.option("--vms", type=click.IntRange(1), default=2, show_default=True, help="How many VMs.")
@click.option(
    "--vm-machines",
    default="q35,microvm",
    show_default=True,
    metavar="LIST",
    help="QEMU machines, which the VMs have in turn.",
)
@click.option("--faults", is_flag=True, help="A fault now and then, chosen at random.")
@click.option("--seed", default=1, show_default=True, help="Decides which faults.")
@click.option("--old-kernel", default="6.12", show_default=True, help="Name, newest, or a path.")
@click.option("--new-kernel", default="6.12", show_default=True, help="Name, newest, or a path.")
@click.option("--output", type=OUTPUT_FILE, help="Write what is seen to this file, as JSON lines.")
@click.option("--keep", is_flag=True, help="Leave the lab running to look around.")
@json_option
@points_options
def soak(
    lab: LabChoice,
    handoffs: int,
    vms: int,
    vm_machines: str,
    faults: bool,
    seed: int,
    old_kernel: str,
    new_kernel: str,
    output: Path | None,
    keep: bool,
    as_json: bool,
    points: PointsChoice,
) -> int:
    """Hand VMs to the new root and back, many times, with guests at work.

    Ctrl-C ends it with what it has. Ends with 1 if a handoff failed, a guest lost something, or an agent's
    memory grew.
    """
    points.check_stdout(data=as_json)
    wanted = busy_vms(vms, parse_machines(vm_machines))
    options = lab.options(
        machine=ground.MACHINE,
        kernel=old_kernel,
        kernels=(new_kernel,),
        vms=vms,
        vm_memory=VM_MEMORY,
    )
    if output:
        output.write_text("")
    with shown_phases() as phases:
        place = ground.Ground(options, labs.kernel_name(new_kernel), phases, vms=wanted)
        run = Soak(place, output, _tell)
        try:
            run.run(handoffs, faults=faults, seed=seed)
        except KeyboardInterrupt:
            say("interrupted: this is what was seen so far", err=True)
        finally:
            if not keep:
                place.down()
    if as_json or not points.ktap:
        _print(run.seen, as_json)
    points.tell(run.seen.points(), "multiroot lab soak")
    return 0 if run.seen.held else 1


def _tell(seen: Seen) -> None:
    if len(seen.handed) % TELL_EVERY == 0:
        now = seen.summary()["blackout_ms"]
        say(
            f"{len(seen.handed)} handoffs, {len(seen.failed)} errors, blackout ms: p50 {now['p50']:.1f},"
            f" p99 {now['p99']:.1f}, max {now['max']:.1f}",
            err=True,
        )


def _print(seen: Seen, as_json: bool) -> None:
    summary: dict[str, Any] = seen.summary()
    if as_json:
        print_json(summary)
        return
    spreads = (("VMM's blackout", "blackout_ms"), ("guest's gap", "gap_ms"), ("whole command", "total_ms"))
    print_table(
        ("ms", "p50 >", "p95 >", "p99 >", "max >"),
        [(name, *(f"{value:.1f}" for value in summary[key].values())) for name, key in spreads],
        title=f"{summary['handoffs']} handoffs, {summary['errors']} errors",
    )
    print_table(
        ("agent of", "MiB at first >", "MiB at last >", "bytes per handoff >", "it"),
        [
            (
                f"the {root} root",
                f"{each['first'] / 2**20:.1f}",
                f"{each['last'] / 2**20:.1f}",
                f"{each['slope']:.0f} ± {each['error']:.0f}",
                each["verdict"],
            )
            for root, each in summary["memory"].items()
        ],
    )
    for failed in seen.failed:
        say(f"handoff {failed.number} of {failed.vm}: {failed.problem}")
    if summary["faults"]:
        say(f"{summary['faults_held']} of {summary['faults']} faults held")
