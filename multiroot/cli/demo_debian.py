# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot demo --guest debian`: what a Debian from its disk did for others on its way, in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiroot.cli.demo_output import print_checks
from multiroot.cli.lab_options import LabChoice
from multiroot.cli.output import console, print_table, shown_phases

if TYPE_CHECKING:
    from multiroot.demo.debian import Options, Report

MEMORY = "512M"
STREAMS = ("ssh", "sql", "ping", "disk")


def options(lab: LabChoice, kernels: tuple[str, str], memory: int, disk: str, *, keep: bool) -> Options:
    """The scenario's options; `kernels` are the old root's and the new one's. The update after the first one
    goes back to the old root's.
    """
    from multiroot.demo import debian
    from multiroot.lab.lab import kernel_name

    old, new = kernels
    chosen = lab.options(kernel=old, kernels=(new,), vms=1, vm_memory=memory)
    there, back = map(kernel_name, (new, old))
    return debian.Options(chosen, (there, back), memory, visited=there, disk=disk, keep=keep)


def intent(options: Options) -> list[str]:
    """What would be done, a line for each step."""
    from multiroot.demo.debian_disks import IMAGE, LOCAL, NAME, PMEM

    seeded = options.disk == PMEM
    shown = {PMEM: " --disk DISK --disk SEED", LOCAL: " --machine large-disk --disk DISK"}.get(
        options.disk, ""
    )
    run = "--disk DISK --disk SEED,ro" if seeded else f"--disk {options.disk}:DISK --user-data LOGIN"
    return [
        f"take a copy of the disk {IMAGE}, make a new key to log in by, boot a lab machine:",
        f"  multiroot vm image build {IMAGE}; multiroot lab up{shown}",
        f"  multiroot vm run {NAME} --firmware {options.firmware} {run}",
        "let it work: an SSH session, a PostgreSQL connection, 100 pings a second, a disk, fio",
        f"  multiroot root launch --kernel {options.visited}",
        f"  multiroot handoff {NAME}; multiroot handoff {NAME} --to old; multiroot root release",
        *(f"  multiroot update --kernel {kernel}" for kernel in options.kernels),
        "end the work, count what there is, power the guest off, check its file system",
    ]


def run(options: Options) -> Report:
    """Play it, with progress."""
    from multiroot.demo import debian

    with shown_phases() as phases:
        return debian.run(options, phases)


def print_report(report: Report) -> None:
    """How long each stream stood, and what held, for people."""
    print_table(
        ("step", "took s >", "blackouts, VMM ms >", *(f"longest gap, {name} ms >" for name in STREAMS)),
        [
            (
                gap.step,
                f"{gap.seconds:.1f}",
                ", ".join(f"{each:.1f}" for each in gap.blackouts) or "-",
                *(f"{gap.gaps[name] * 1e3:.0f}" for name in STREAMS),
            )
            for gap in report.gaps
        ],
        title=f"Debian at work (it had booted after {report.booted_s:.1f} s)",
    )
    for what, seconds in report.away_s:
        console().print(f"{what} for {seconds:.1f} s")
    print_checks(report.claims, held=report.held)
