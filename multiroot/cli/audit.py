# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab audit`: what each root does with the state that a machine has only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from multiroot.cli.commands import Command
from multiroot.cli.lab_options import LabChoice, lab_options
from multiroot.cli.output import console, json_option, plain, print_json, print_table, shown_phases
from multiroot.cli.points import PointsChoice, points_options

if TYPE_CHECKING:
    from multiroot.audit.audit_report import Audit
    from multiroot.audit.rows import Rows

FAILED = 1


@click.command(cls=Command, example="multiroot lab audit --old-kernel 6.1 --new-kernel 6.12")
@click.option("--old-kernel", default="6.12", show_default=True, help="Kernel of the old root.")
@click.option("--new-kernel", default="6.12", show_default=True, help="Kernel of the new root.")
@lab_options("audit")
@click.option("--keep-old", is_flag=True, help="Leave the old root alive: no retire.")
@click.option("--keep", is_flag=True, help="Leave the lab running to look around.")
@click.option("--dry-run", is_flag=True, help="Print what would be judged, and run nothing.")
@json_option
@points_options
def audit(
    lab: LabChoice,
    old_kernel: str,
    new_kernel: str,
    keep_old: bool,
    keep: bool,
    dry_run: bool,
    as_json: bool,
    points: PointsChoice,
) -> None:
    """Play an update under QEMU's trace; fail when a root touches what is not its own."""
    from multiroot.audit import rows, run
    from multiroot.demo import scenario
    from multiroot.lab.lab import check_names, chosen_recipe, kernel_name
    from multiroot.units import MIB

    points.check_stdout(data=as_json)
    memory = 256 * MIB
    options = scenario.Options(
        lab=lab.options(kernel=old_kernel, kernels=(new_kernel,), vms=1, vm_memory=memory),
        new_kernel=kernel_name(new_kernel),
        vm_memory=memory,
        keep=keep,
    )
    if dry_run:
        check_names(options.lab)
        chosen_recipe(options.lab)
        _print_rows(rows.load(), as_json)
        return
    with shown_phases() as phases:
        found = run.run(options, phases, retire=not keep_old)
    if as_json:
        print_json(found.to_json())
    elif not points.ktap:
        print_audit(found)
    points.tell(found.points(), "multiroot lab audit")
    if not found.held:
        raise click.exceptions.Exit(FAILED)


def print_audit(found: Audit) -> None:
    """One line a row, then what was wrong."""
    from multiroot.audit.judge import DEVICES

    print_table(
        ("row", "old reads >", "writes >", "new reads >", "writes >", "devices >", "verdict", "state"),
        [
            (
                row.id,
                *found.counts(row, "old"),
                *found.counts(row, "new"),
                sum(found.counts(row, DEVICES)),
                "VIOLATED" if found.broken(row) else "held",
                row.name,
            )
            for row in found.rows.row
        ],
        title="Global state",
    )
    out = console()
    for violation in found.violations:
        out.print(
            f"  [red]VIOLATED[/] {violation.row}, phase {violation.phase}: {violation.who}"
            f" {plain(violation.what)}"
            f" (first value {violation.value:#x}, {violation.count} times)",
        )
    for claim in found.failed:
        out.print(f"  [red]FAILED[/] {plain(claim)}")
    judged = f"{found.accesses} accesses ({found.trace_bytes / 1e6:.1f} MB of trace)"
    judged += f" and {sum(found.msr_writes.values())} MSR writes judged"
    out.print(f"{judged}; {found.rings} doorbells between the roots")
    out.print("every row held" if found.held else "[red]not every row held[/]")


def _print_rows(rows: Rows, as_json: bool) -> None:
    from multiroot.audit.rows import Phase

    if as_json:
        print_json([row.model_dump(mode="json") for row in rows.row])
        return
    print_table(
        ("row", *(phase.value for phase in Phase), "seen by", "state"),
        [
            (row.id, *(row.owner[phase].value for phase in Phase), ", ".join(row.checks()), row.name)
            for row in rows.row
        ],
    )
