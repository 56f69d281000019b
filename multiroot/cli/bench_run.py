# SPDX-License-Identifier: GPL-2.0-or-later
"""What all benches have in common on the command line: options, the run with its progress, the results."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from multiroot.bench import names
from multiroot.bench.results.view import View
from multiroot.cli.output import console, json_option, plain, print_json, print_table, shown_phases
from multiroot.cli.output_file import OUTPUT_FOLDER
from multiroot.units import parse_size
from multiroot.vm.definition import check_machine, check_ram

if TYPE_CHECKING:
    from multiroot.bench.results.samples import Run
    from multiroot.phases import Phases

Function = TypeVar("Function", bound=Callable[..., Any])

OUR_METRICS = (
    "blackout_ns",
    "blackout_gap_ns",
    "tick_to_stop_ns",
    "resume_to_tick_ns",
    "gap_ns",
    "total_ns",
    "sent_bytes",
)
SAMPLES = click.IntRange(1, 10_000)


def common_options(function: Function) -> Function:
    """What every bench takes."""
    for option in reversed((
        click.option("--out", type=OUTPUT_FOLDER, help="Folder for what was measured."),
        click.option("--seed", default=1, show_default=True, help="Decides the order of turns."),
        click.option("--old-kernel", default="6.12", show_default=True, help="Name, newest, or a path."),
        click.option("--new-kernel", default="6.12", show_default=True, help="Name, newest, or a path."),
        click.option("--name", default="bench", show_default=True, help="Name of the lab it runs in."),
        json_option,
    )):  # fmt: skip
        function = option(function)
    return function


def tick_option(default: int) -> Callable[[Function], Function]:
    """How often a guest ticks."""
    return click.option(
        "--tick",
        type=click.IntRange(1, 10_000),
        default=default,
        show_default=True,
        metavar="MS",
        help="Time from one tick of a guest to the next.",
    )


def lab_options(chosen: dict[str, Any]) -> Any:
    """Takes the lab's part out of `chosen`."""
    from multiroot.lab import lab as labs

    return labs.Options(
        name=chosen.pop("name"), kernel=chosen.pop("old_kernel"), kernels=(chosen.pop("new_kernel"),)
    )


def parse_sizes(text: str) -> tuple[int, ...]:
    """Sizes of VMs in a list; raises BadRequestError for one that no VM can have."""
    sizes = tuple(parse_size(each) for each in text.split(","))
    for size in sizes:
        check_ram(size)
    return sizes


def parse_machines(text: str) -> tuple[str, ...]:
    """QEMU machines in a list; what has a "=" is an option of the one before it. Raises BadRequestError."""
    machines: list[str] = []
    for word in text.split(","):
        if "=" in word and machines:
            machines[-1] += f",{word}"
        else:
            machines.append(word)
    for machine in machines:
        check_machine(machine)
    return tuple(machines)


def results_folder(bench_name: str) -> Path:
    """A folder of its own for this run."""
    from multiroot.lab import paths

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return paths.state_dir() / "bench" / f"{stamp}-{bench_name}"


def watched(work: Callable[[Phases], Run]) -> Run:
    """Do it, showing progress."""
    with shown_phases() as phases:
        return work(phases)


def show(run: Run, view: View, folder: Path, as_json: bool) -> None:
    """Leave a summary and a report in `folder`; print tables, or data."""
    from multiroot.bench.results import html_report, inside, kexec_phases, render

    data = render.to_json(run, view)
    (folder / "summary.json").write_text(json.dumps(data, indent=2) + "\n")
    page = html_report.write(run, view, folder)
    if as_json:
        print_json(data)
        return
    print_table(*render.summary_table(run, view.metrics), title=f"bench {run.header.bench}")
    for each in view.compared:
        if render.ratios(run, each, view.base):
            print_table(*render.ratio_table(run, each, view.base), title=f"{render.title(each)}: ratios")
    if run.values(names.KEXEC, "total_ns"):
        rows = kexec_phases.table(run, names.KEXEC, view.ours, names.NEW_ROOT)
        print_table(*render.kexec_table(rows), title="The ten phases of kexec + PMEM (the LPC 2021 method)")
    for told in inside.tables(run, view):
        print_table(*told.table, title=told.title)
    out = console()
    if clocks := render.clocks(run):
        out.print(f"  {plain(clocks)}")
    for name, why in run.skipped.items():
        out.print(f"  left out: {plain(name)}: {plain(why)}")
    for failed in data["failed"]:
        what = plain(f"{failed['contender']}, round {failed['round']}: {failed['failed']}")
        out.print(f"  [red]failed[/]: {what}")
    for warning in data["noise"]:
        out.print(f"  [yellow]flagged noisy[/]: {plain(warning)}")
    out.print(plain(f"  report: {page}; every sample: {folder / 'samples.jsonl'}"))
