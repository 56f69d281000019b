# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot demo`: the main job end to end, with progress, a table of phases and a short proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.commands import Command
from multiroot.cli.demo_output import print_checks, tell
from multiroot.cli.demo_stage import Showing, opened, stage_options
from multiroot.cli.lab_options import LabChoice, lab_options
from multiroot.cli.output import console, print_json, print_table, say, shown_phases
from multiroot.cli.output_file import FILE_OR_STDOUT
from multiroot.cli.points import PointsChoice, points_options
from multiroot.errors import BadRequestError
from multiroot.units import format_cpu_list, parse_cpu_list, parse_size
from multiroot.vm.definition import check_ram

if TYPE_CHECKING:
    from multiroot.demo.demo_report import Report, VmSeen
    from multiroot.demo.scenario import Options
    from multiroot.lab import lab as lab_module

FAILED = 1
KERNEL, MEMORY = "6.12", "256M"


@dataclass(frozen=True)
class Wanted:
    """What the command line says of the demo itself; sizes as they were written."""

    old_kernel: str | None
    new_kernel: str | None
    vm_memory: str | None
    vms: int
    cpus: str
    carve: str
    passthrough: bool
    disk: str | None

    def memory(self, usual: str) -> int:
        """RAM of each VM in bytes; raises BadRequestError for what is no size."""
        memory = parse_size(self.vm_memory or usual)
        check_ram(memory)
        return memory

    def check_script(self, guest: str, json_file: Path | None) -> None:
        """Raises UsageError for what a script says itself."""
        said = (self.old_kernel, self.new_kernel, self.vm_memory, self.cpus, self.carve, json_file)
        if any(said) or self.vms != 1 or self.passthrough or self.disk or guest != "ticker":
            raise click.UsageError("a script says kernels and VMs itself: leave those options out.")

    def check_debian(self, showing: Showing, *, keep: bool) -> None:
        """Raises UsageError for what is said of other guests only, and for a disk that would not stay."""
        if keep and self.disk == "nbd":
            raise click.UsageError("the disk's server ends with the demo: leave --keep or --disk nbd out.")
        if showing.shows:
            raise click.UsageError("--live, --pause and --record are for --guest ticker.")
        if self.passthrough or self.vms != 1 or self.cpus or self.carve:
            raise click.UsageError("--vms, --cpus, --carve and --passthrough are for --guest ticker.")

    def check_ticker(self) -> None:
        """Raises UsageError for what is said of Debian only."""
        if self.disk:
            raise click.UsageError("--disk is for --guest debian.")

    def options(self, lab: LabChoice, *, keep: bool) -> Options:
        """The scenario's options; raises BadRequestError for what is no size or no list of CPUs."""
        from multiroot.demo import device, scenario
        from multiroot.lab.lab import kernel_name

        usual = device.KERNEL if self.passthrough else KERNEL
        new_kernel = self.new_kernel or usual
        memory = self.memory(MEMORY)
        carve = parse_size(self.carve) if self.carve else 0
        chosen = lab.options(
            machine=device.MACHINE if self.passthrough else "default",
            kernel=self.old_kernel or usual,
            kernels=(new_kernel,),
            vms=self.vms,
            vm_memory=memory,
            carve=carve or None,
        )
        self._check_cpus(chosen)
        return scenario.Options(
            lab=chosen,
            new_kernel=kernel_name(new_kernel),
            vm_memory=memory,
            vms=self.vms,
            cpus=self.cpus,
            carve=carve,
            keep=keep,
            card=self.passthrough,
        )

    def _check_cpus(self, chosen: lab_module.Options) -> None:
        """Raises BadRequestError for CPUs that such a lab machine can't give away; they are asked for only
        when it has booted.
        """
        from multiroot.lab.lab import chosen_recipe

        there = range(1, chosen_recipe(chosen).cpus)
        if others := [cpu for cpu in parse_cpu_list(self.cpus) if cpu not in there]:
            raise BadRequestError(
                f"the new root can't have CPU {format_cpu_list(others)}",
                f"of this lab machine it can have {format_cpu_list([*there])}",
            )


@dataclass(frozen=True)
class Output:
    """Where the report goes beside the tables."""

    json_file: Path | None
    points: PointsChoice

    def check_dry_run(self) -> None:
        """Raises UsageError for what nothing can be written into."""
        if self.points.ktap or self.points.junit:
            raise click.UsageError("a dry run finds nothing to judge: leave --ktap and --junit out.")

    def tell_intent(self, lines: Sequence[str]) -> None:
        """What would be done, as a report would be told."""
        data = {"would_do": [line.strip() for line in lines]}
        if self.json_file == Path("-"):
            print_json(data)
            return
        if self.json_file:
            self.json_file.write_text(json.dumps(data, indent=2) + "\n")
        for line in lines:
            say(line)


@click.command(cls=Command, example="multiroot demo --old-kernel 6.1 --new-kernel 6.12 --vms 2")
@click.option("--old-kernel", show_default="6.12", help="Kernel of the old root: a name or a file.")
@click.option("--new-kernel", show_default="6.12", help="Kernel of the new root: a name or a file.")
@click.option(
    "--guest",
    type=click.Choice(["ticker", "debian"]),
    default="ticker",
    show_default=True,
    help="ticker counts and checks its memory; debian boots from its disk and works for people outside.",
)
@click.option("--vm-memory", show_default="256M, of debian 512M", metavar="SIZE", help="RAM of each VM.")
@click.option("--vms", type=click.IntRange(1, 16), default=1, show_default=True, help="How many VMs.")
@click.option("--cpus", default="", metavar="LIST", help="CPUs for the new root, such as 2-3.")
@click.option("--carve", default="", metavar="SIZE", help="Memory for the new root, such as 1G.")
@click.option(
    "--disk",
    type=click.Choice(["pmem", "nbd", "local"]),
    show_default="pmem",
    help="How all roots reach Debian's disk: persistent memory, a server outside, a file that a root serves.",
)
@lab_options("demo")
@click.option("--json", "json_file", type=FILE_OR_STDOUT, help="Write what was seen to FILE ('-': stdout).")
@click.option("--passthrough", is_flag=True, help="The VM owns a network card, which goes along at work.")
@click.option("--keep", is_flag=True, help="Leave the lab running to look around.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and do nothing.")
@points_options
@click.option("--ui", is_flag=True, help="Serve the page that shows it, and print where (`lab ui`).")
@stage_options
def demo(
    lab: LabChoice,
    json_file: Path | None,
    keep: bool,
    dry_run: bool,
    ui: bool,
    guest: str,
    showing: Showing,
    points: PointsChoice,
    **words: Any,
) -> None:
    """Hand a running VM from one kernel to another, and prove it."""
    wanted = Wanted(**words)
    showing.check()
    points.check_stdout(data=json_file == Path("-"))
    output = Output(json_file, points)
    if dry_run:
        output.check_dry_run()
    with _page(lab.name, keep=keep) if ui and not dry_run else nullcontext():
        if showing.script:
            wanted.check_script(guest, json_file)
            held = _play_script(showing, lab, keep, dry_run)
        elif guest == "debian":
            wanted.check_debian(showing, keep=keep)
            held = _play_debian(wanted, lab, output, keep, dry_run)
        else:
            wanted.check_ticker()
            held = _play(wanted, lab, output, keep, dry_run, showing)
    if keep and not dry_run:
        say(
            f"the lab runs on; end it with `multiroot lab down --name {lab.name}`",
            err=True,
        )
    if not held:
        raise click.exceptions.Exit(FAILED)


def _page(name: str, *, keep: bool) -> AbstractContextManager[None]:
    """The page of that lab, for as long as it is played."""
    from multiroot.cli.lab_ui import beside

    return beside(name, keep=keep)


def _play_script(showing: Showing, lab: LabChoice, keep: bool, dry_run: bool) -> bool:
    from multiroot.cli import demo_stage

    if dry_run:
        demo_stage.print_script(showing)
    else:
        demo_stage.play_talk(showing, lab, keep=keep)
    return True


def _play(
    wanted: Wanted,
    lab: LabChoice,
    output: Output,
    keep: bool,
    dry_run: bool,
    showing: Showing,
) -> bool:
    options = wanted.options(lab, keep=keep)
    if dry_run:
        output.tell_intent(_intent(options))
        return True
    return tell(_run(options, showing), output.json_file, print_report, output.points, "multiroot demo")


def _play_debian(wanted: Wanted, lab: LabChoice, output: Output, keep: bool, dry_run: bool) -> bool:
    from multiroot.cli import demo_debian

    kernels = (wanted.old_kernel or KERNEL, wanted.new_kernel or KERNEL)
    options = demo_debian.options(
        lab, kernels, wanted.memory(demo_debian.MEMORY), wanted.disk or "pmem", keep=keep
    )
    if dry_run:
        output.tell_intent(demo_debian.intent(options))
        return True
    report, show = demo_debian.run(options), demo_debian.print_report
    return tell(report, output.json_file, show, output.points, "multiroot demo --guest debian")


def _run(options: Options, showing: Showing) -> Report:
    from multiroot.demo import scenario

    if showing.shows:
        with opened(showing, live=showing.live or showing.pause) as (phases, audience):
            return scenario.run(options, phases, audience)
    with shown_phases() as phases:
        return scenario.run(options, phases)


def _intent(options: Options) -> list[str]:
    from multiroot import proc
    from multiroot.demo import guests
    from multiroot.lab import lab
    from multiroot.lab.machine import qemu_argv
    from multiroot.phases import Phases

    machine, _ = lab.prepare(options.lab, Phases("workstation"))
    wanted = guests.definitions(options.vms, options.vm_memory, card=options.card)
    lines = ["boot the lab machine:", "  " + proc.quote(qemu_argv(machine)), "in it:"]
    for vm in wanted:
        own = f" --guest {vm.guest} --device {vm.functions[0]} --append '{vm.append}'" if vm.functions else ""
        lines.append(
            f"  multiroot vm run {vm.name} --memory {vm.ram_bytes} --address {vm.cards[0].address}{own}"
        )
    launch = f"  multiroot root launch --kernel {options.new_kernel}"
    launch += f" --cpus {options.cpus}" if options.cpus else ""
    lines.append(launch + (f" --carve {options.carve}" if options.carve else ""))
    return [*lines, *(f"  multiroot handoff {vm.name}" for vm in wanted)]


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
    print_checks(report.checks(), held=report.held)


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
