# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot disk`: what VMs can have for disks, from inside a root."""

from __future__ import annotations

import click

from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_json, print_table
from multiroot.errors import BadRequestError
from multiroot.units import format_size


@click.group(cls=Group)
def disk() -> None:
    """See what VMs can have for disks. Works inside a root."""


@disk.command("list", example="multiroot disk list --json")
@json_option
def list_disks(as_json: bool) -> None:
    """Persistent memory that is a block device here. The name in the first column is the same in every root.

    What this root has mounted, as it has its system image, can't be a VM's disk. Needs no agent.
    """
    from dataclasses import asdict

    from multiroot.device.handle import DEVICE
    from multiroot.vm import pmem
    from multiroot.vm.disk import name_of

    found = [
        {
            **asdict(each),
            "source": name_of(each.address),
            "node": str(each.node),
            "mounted": bool(pmem.unusable(each.node)),
        }
        for each in pmem.devices()
    ]
    if not (found or DEVICE.exists()):
        raise BadRequestError(
            "no persistent memory here is a block device",
            "this is for a root; in a lab: `multiroot lab exec -- multiroot disk list`",
        )
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["source"],
            format_size(each["size"]),
            *(_word(each[key]) for key in ("read_only", "mounted")),
            each["node"],
        )
        for each in found
    ]
    print_table(("source", "size >", "read-only", "mounted", "here"), rows)


def _word(value: object) -> str:
    return "yes" if value else "no"
