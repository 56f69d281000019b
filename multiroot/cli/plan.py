# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot plan`: what the machine has, and what a new root would get of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from multiroot import arch
from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_json, print_table
from multiroot.cli.planning import (
    describe,
    known_facts,
    open_device,
    parse_request,
    plan_rows,
    request_options,
)

if TYPE_CHECKING:
    from multiroot.plan.inventory import Inventory


@click.group(cls=Group)
def plan() -> None:
    """See what a new root would get."""


@plan.command(example="multiroot plan show --cpus 2-3 --carve 1G")
@request_options
@json_option
def show(as_json: bool, **options: Any) -> None:
    """Plan a new root and print the plan, and what it can't have after this one; nothing is changed."""
    from dataclasses import asdict

    from multiroot.launch.facts import take_inventory
    from multiroot.plan.devices import stays
    from multiroot.plan.planner import plan as make_plan

    request = parse_request(**options)
    device = open_device(required=False)
    facts = known_facts(device)
    made = make_plan(take_inventory(device, facts), request)
    left = stays()
    if as_json:
        print_json({**made.to_dict(), "stays": [asdict(each) for each in left]})
    else:
        rows = [("can't pass on", str(each)) for each in left]
        print_table(("root", str(facts.next_root)), [*plan_rows(made), *rows])


@plan.command(example="multiroot plan inventory --json")
@json_option
def inventory(as_json: bool) -> None:
    """Print the CPUs and the memory that plans are made from."""
    from dataclasses import asdict

    from multiroot.launch.facts import take_inventory

    device = open_device(required=False)
    found = take_inventory(device, known_facts(device))
    if as_json:
        print_json(asdict(found))
        return
    print_table(
        ("CPU >", f"{arch.current().cpus.id_name} >", "state", "core", "root >"),
        [
            (
                cpu.number,
                "?" if cpu.hardware_id is None else cpu.hardware_id,
                "boot" if cpu.is_boot else "online" if cpu.online else "offline",
                ",".join(map(str, cpu.siblings)),
                cpu.owner or "-",
            )
            for cpu in found.cpus
        ],
    )
    print_table(("memory", "range"), _memory_rows(found))


def _memory_rows(found: Inventory) -> list[tuple[str, str]]:
    rows = [("in use", describe(item)) for item in found.system_ram]
    rows += [("persistent", describe(item)) for item in found.pmem]
    rows += [("free, reserved at boot", describe(item)) for item in found.reserved_carves]
    for run in found.block_runs:
        first, last = run[0].range, run[-1].range
        rows.append(("can go offline", f"{first.base:#x}-{last.end - 1:#x}, {len(run)} memory blocks"))
    return rows
