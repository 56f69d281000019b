# SPDX-License-Identifier: GPL-2.0-or-later
"""What `plan` and `kexec` share: the options of a request, and tables of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from multiroot import arch
from multiroot.cli.output import print_json, print_table
from multiroot.errors import BadRequestError, MultirootError
from multiroot.units import format_cpu_list, format_size, parse_cpu_list, parse_size

if TYPE_CHECKING:
    from multiroot.device.handle import Device
    from multiroot.launch.facts import Facts
    from multiroot.plan.planner import Plan
    from multiroot.plan.request import Request
    from multiroot.ranges import Range

Command = Callable[..., Any]

_OPTIONS = (
    click.option("--cpus", default="", metavar="LIST", help="CPUs for it, such as 2-3."),
    click.option(
        "--cpu-count",
        type=click.IntRange(1, 8192),
        metavar="N",
        help="How many CPUs, when it does not matter which.",
    ),
    click.option(
        "--carve", default="", metavar="SIZE[@BASE]", help="Memory for it, such as 1G or 1G@0x118000000."
    ),
    click.option("--low-window", default="", metavar="SIZE@BASE", help="Its memory below 640 KiB."),
    click.option("--pmem/--no-pmem", default=True, help="Show it the persistent memory (default), or none."),
)


def request_options(command: Command) -> Command:
    """Adds the options of a request; what is left out is the planner's choice."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_request(
    cpus: str, cpu_count: int | None, carve: str, low_window: str, pmem: bool, needed: int | None = None
) -> Request:
    """The request these options make; `needed` is the least carve. Raises BadRequestError."""
    from multiroot.plan.request import CARVE_FLOOR, Request

    size, base = _size_at_base(carve)
    low = _low_window(low_window) if low_window else None
    if cpus and cpu_count is not None:
        raise click.UsageError("--cpus and --cpu-count exclude each other")
    return Request(
        cpus=parse_cpu_list(cpus) if cpus else None,
        cpu_count=cpu_count,
        carve_size=size,
        carve_base=base,
        low=low,
        needed=CARVE_FLOOR if needed is None else needed,
        pmem=pmem,
    )


def _low_window(text: str) -> Range:
    from multiroot.ranges import Range

    size, base = _size_at_base(text)
    if size is None or base is None:
        raise click.UsageError("--low-window takes SIZE@BASE, such as 128K@0x20000")
    try:
        return Range(base, size)
    except ValueError as error:
        raise BadRequestError(f"low window: {error}") from error


def _size_at_base(text: str) -> tuple[int | None, int | None]:
    """(size, base) of SIZE[@BASE]; the memmap= syntax of the kernel's command line."""
    size, _, base = text.partition("@")
    return parse_size(size) if size else None, parse_size(base) if base else None


def open_device(required: bool) -> Device | None:
    """The module's device; None when it is not loaded and not `required`."""
    from multiroot.device.errors import NoDeviceError
    from multiroot.device.handle import Device

    try:
        return Device()
    except NoDeviceError:
        if required:
            raise
        return None


def known_facts(device: Device | None) -> Facts:
    """The module's facts, or an estimate without it."""
    from multiroot.launch.facts import facts_of, facts_without_module

    return facts_of(device) if device else facts_without_module()


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """(what, value) for a table."""
    how = "reserved at boot" if not plan.blocks else f"memory blocks {format_cpu_list(plan.blocks)}"
    first, id_name = plan.cpus[0], arch.current().cpus.id_name
    rows = [
        ("CPUs", format_cpu_list([cpu.number for cpu in plan.cpus])),
        ("starts on", f"CPU {first.number} ({id_name} {first.hardware_id})"),
        ("carve", f"{describe(plan.carve)}, {how}"),
        ("mapped with", f"{format_size(plan.alignment)} pages"),
        ("low window", describe(plan.low)),
        ("shared area", f"{plan.shared:#x}"),
    ]
    return rows + [("PMEM", describe(item)) for item in plan.pmem]


def print_sent_plan(text: str, as_json: bool) -> None:
    """Print the plan that an agent sent; raises MultirootError if it is none."""
    from multiroot.plan.planner import Plan

    try:
        plan = Plan.from_json(text)
    except BadRequestError as error:
        raise MultirootError("what the agent answered is no plan", "see its log") from error
    if as_json:
        print_json(plan.to_dict())
    else:
        print_table(("new root", "what it gets"), plan_rows(plan))


def describe(item: Range) -> str:
    """Range and size for people."""
    return f"{item} ({format_size(item.size)})"


def hex_rows(rows: Iterable[tuple[int, int, str]]) -> list[tuple[str, str, str, str]]:
    """(start, size, what) as cells: first and last address, size, what."""
    return [(f"{at:#014x}", f"{at + size - 1:#014x}", format_size(size), what) for at, size, what in rows]
