# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot demo`: the main job end to end, with progress, a table of phases and a short proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from multiroot.cli.commands import Command
from multiroot.cli.output import console, print_table, shown_phases
from multiroot.units import parse_size

if TYPE_CHECKING:
    from multiroot.demo.demo_report import Report, VmSeen
    from multiroot.demo.scenario import Options

FAILED = 1


@click.command(cls=Command, example="multiroot demo --old-kernel 6.1 --new-kernel 6.12 --vms 2")
@click.option("--old-kernel", show_default="6.12", help="Kernel of the old root: a name or a file.")
@click.option("--new-kernel", show_default="6.12", help="Kernel of the new root: a name or a file.")
@click.option("--modules", type=click.Path(path_type=Path), help="Modules of a kernel given by path.")
@click.option("--vm-memory", default="256M", show_default=True, metavar="SIZE", help="RAM of each VM.")
@click.option("--vms", default=1, show_default=True, help="How many VMs.")
@click.option("--cpus", default="", metavar="LIST", help="CPUs for the new root, such as 2-3.")
@click.option("--carve", default="", metavar="SIZE", help="Memory for the new root, such as 1G.")
@click.option("--name", default="demo", show_default=True, help="Name of the lab it runs in.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write what was seen to FILE ('-': stdout)."
)
@click.option("--passthrough", is_flag=True, help="The VM owns a network card, which goes along at work.")
@click.option("--keep", is_flag=True, help="Leave the lab running to look around.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and do nothing.")
def demo(
    old_kernel: str | None,
    new_kernel: str | None,
    modules: Path | None,
    vm_memory: str,
    vms: int,
    cpus: str,
    carve: str,
    name: str,
    json_file: Path | None,
    passthrough: bool,
    keep: bool,
    dry_run: bool,
) -> None:
    """Hand a running VM from one kernel to another, and prove it."""
    from multiroot.demo import device, scenario
    from multiroot.lab import lab

    usual = device.KERNEL if passthrough else "6.12"
    old_kernel, new_kernel = old_kernel or usual, new_kernel or usual
    memory = parse_size(vm_memory)
    carve_bytes = parse_size(carve) if carve else 0
    options = scenario.Options(
        lab=lab.Options(
            name=name,
            machine=device.MACHINE if passthrough else "default",
            kernel=old_kernel,
            kernels=(new_kernel,),
            modules=modules,
            vms=vms,
            vm_memory=memory,
            carve=carve_bytes or None,
        ),
        new_kernel=lab.kernel_name(new_kernel),
        vm_memory=memory,
        vms=vms,
        cpus=cpus,
        carve=carve_bytes,
        keep=keep,
        card=passthrough,
    )
    if dry_run:
        _print_intent(options)
        return
    report = _run(options)
    if json_file:
        _write_json(report, json_file)
    if json_file != Path("-"):
        print_report(report)
    if keep:
        click.echo(
            f"the lab runs on; end it with `multiroot lab down --name {name}`",
            err=True,
        )
    if not report.held:
        raise click.exceptions.Exit(FAILED)


def _run(options: Options) -> Report:
    from multiroot.demo import scenario

    with shown_phases() as phases:
        return scenario.run(options, phases)


def _print_intent(options: Options) -> None:
    from multiroot import proc
    from multiroot.demo import guests
    from multiroot.lab import lab
    from multiroot.lab.machine import qemu_argv
    from multiroot.phases import Phases

    machine, _ = lab.prepare(options.lab, Phases("workstation"))
    click.echo("boot the lab machine:\n  " + proc.quote(qemu_argv(machine)))
    click.echo("in it:")
    wanted = guests.definitions(options.vms, options.vm_memory, card=options.card)
    for vm in wanted:
        own = f" --guest {vm.guest} --device {vm.functions[0]} --append '{vm.append}'" if vm.functions else ""
        click.echo(
            f"  multiroot vm run {vm.name} --memory {vm.ram_bytes} --address {vm.cards[0].address}{own}"
        )
    launch = f"  multiroot root launch --kernel {options.new_kernel}"
    launch += f" --cpus {options.cpus}" if options.cpus else ""
    click.echo(launch + (f" --carve {options.carve}" if options.carve else ""))
    for vm in wanted:
        click.echo(f"  multiroot handoff {vm.name}")


def _write_json(report: Report, path: Path) -> None:
    text = json.dumps(report.to_json(), indent=2) + "\n"
    if path == Path("-"):
        click.echo(text, nl=False)
    else:
        path.write_text(text)


def print_report(report: Report) -> None:
    """Phases, launch, blackout and proof, for people."""
    data = report.to_json()
    first = data["phases"][0]["start_ns"]
    print_table(
        ("phase", "side", "start s >", "took ms >", "blackout"),
        [
            (
                phase["name"],
                phase["side"],
                f"{(phase['start_ns'] - first) / 1e9:.3f}",
                f"{phase['duration_ns'] / 1e6:.1f}",
                "inside" if phase["blackout"] else "",
            )
            for phase in data["phases"]
        ],
        title="Phases",
    )
    print_table(
        ("new root", "s >"),
        [(key.replace("_", " "), f"{value:.3f}") for key, value in data["launch"].items()],
        title="Launch (from first message on: since its CPU was started)",
    )
    print_table(
        ("VM", "RAM >", "RAM copied >", "device state >", "blackout, VMM ms >", "blackout, guest ms >"),
        [_blackout_row(vm) for vm in report.vms],
        title="Blackout",
    )
    out = console()
    retries = (
        f"{report.boot_retries} of the lab machine, {report.guest_boot_retries} of guests,"
        f" {report.launch_retries} of the new root"
    )
    out.print(f"  boots tried again: {retries}")
    for check in report.checks():
        mark = "[green]held  [/]" if check.held else "[red]FAILED[/]"
        out.print(f"  {mark} {check.claim}: {check.seen}")
    out.print("everything held" if report.held else "[red]not everything held[/]")


def _blackout_row(vm: VmSeen) -> tuple[str, ...]:
    from multiroot.units import format_size

    return (
        vm.name,
        format_size(vm.ram_bytes),
        f"{vm.ram_bytes_copied} B",
        f"{vm.device_state_bytes} B",
        f"{(vm.resumed_ns - vm.stopped_ns) / 1e6:.1f}",
        f"{vm.guest.largest_gap_ns / 1e6:.1f}",
    )
