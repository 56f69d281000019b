# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot lab fault`: make things go wrong in a lab machine, and see what becomes of the VM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from multiroot.cli.commands import Group
from multiroot.cli.lab_options import LabChoice, lab_options
from multiroot.cli.output import json_option, print_json, print_table, say, shown_phases
from multiroot.faults import catalogue, ground, table
from multiroot.faults.fault import Fault, Outcome
from multiroot.faults.runner import Runner
from multiroot.lab import lab as labs

Command = Callable[..., Any]


def run_options(function: Command) -> Command:
    """What both ways to run faults take."""
    for option in reversed((
        click.option("--old-kernel", default="6.12", show_default=True, help="Name, newest, or a path."),
        click.option("--new-kernel", default="6.12", show_default=True, help="Name, newest, or a path."),
        click.option(
            "--page",
            type=click.Path(path_type=Path, exists=True),
            help="Write the table into this page; the data go beside it, as .json.",
        ),
        click.option("--keep", is_flag=True, help="Leave the lab running to look around."),
        json_option,
    )):  # fmt: skip
        function = option(function)
    decorated: Command = lab_options("faults")(function)
    return decorated


@click.group(cls=Group)
def fault() -> None:
    """Make things go wrong in a lab machine, and see what becomes of the VM."""


@fault.command("list", example="multiroot lab fault list")
@click.option("--short", is_flag=True, help="Only those of the short matrix.")
@json_option
def list_(short: bool, as_json: bool) -> None:
    """All faults: at which step they strike, and what may become of the VM."""
    faults = catalogue.chosen((), short=short)
    if as_json:
        print_json([_fault_json(each) for each in faults])
        return
    print_table(
        ("name", "during", "what goes wrong", "the VM then"),
        [(each.name, each.during, each.what, " or ".join(each.fates)) for each in faults],
    )


@fault.command(example='multiroot lab fault run "taker.owned/*" garbage')
@click.argument("names", nargs=-1, required=True)
@run_options
def run(names: tuple[str, ...], **chosen: Any) -> int:
    """Run the faults NAMES; * and ? stand for any text. Ends with 1 if something did not hold."""
    return _run(catalogue.chosen(names), **chosen)


@fault.command(example="multiroot lab fault matrix --page docs/faults.md")
@click.option("--short", is_flag=True, help="Only the most telling ones.")
@run_options
def matrix(short: bool, **chosen: Any) -> int:
    """Run all faults. Ends with 1 if something did not hold."""
    return _run(catalogue.chosen((), short=short), **chosen)


def _run(
    faults: Sequence[Fault],
    lab: LabChoice,
    old_kernel: str,
    new_kernel: str,
    page: Path | None,
    keep: bool,
    as_json: bool,
) -> int:
    options = lab.options(
        machine=ground.MACHINE, kernel=old_kernel, kernels=(new_kernel,), vms=1, vm_memory=ground.VM_MEMORY
    )
    if page:
        table.check_page(page)
    done: list[Outcome] = []

    def seen(outcome: Outcome) -> None:
        done.append(outcome)
        say(_line(len(done), len(faults), outcome), err=True)
        if page:
            every = catalogue.all_faults()
            table.update_page(page, _record(page.with_suffix(".json"), done, every), len(every))

    with shown_phases() as phases:
        # A lab that can't be is no fault that did not hold.
        labs.prepare(options, phases)
        place = ground.Ground(options, labs.kernel_name(new_kernel), phases)
        try:
            Runner(place, seen).run(faults)
        finally:
            if not keep:
                place.down()
    if as_json:
        print_json([asdict(outcome) for outcome in done])
    else:
        say(f"{sum(outcome.held for outcome in done)} of {len(done)} held")
    return 0 if all(outcome.held for outcome in done) else 1


def _record(path: Path, done: Sequence[Outcome], every: Sequence[Fault]) -> list[Outcome]:
    return list(table.write(path, done, every).values())


def _line(number: int, count: int, outcome: Outcome) -> str:
    said = outcome.fate if outcome.held else "NOT HELD: " + "; ".join(outcome.problems)
    return f"{number}/{count} {outcome.name}: {said} (settled after {outcome.recovery_s:.1f} s)"


def _fault_json(each: Fault) -> dict[str, Any]:
    return {
        "name": each.name,
        "during": each.during,
        "step": each.step,
        "what": each.what,
        "fates": list(each.fates),
        "short": each.short,
    }
