# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot disk`: what VMs can have for disks, from inside a root or beside a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from multiroot.cli.agent import lab_of_agent
from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_json, print_table, say, yes_or_no
from multiroot.errors import BadRequestError, PeerLostError
from multiroot.units import format_size

if TYPE_CHECKING:
    from multiroot.lab.state import LabState


@click.group(cls=Group)
def disk() -> None:
    """See what VMs can have for disks."""


@disk.command("list", example="multiroot disk list --json")
@json_option
def list_disks(as_json: bool) -> int:
    """Persistent memory that is a block device here. The name in the first column is the same in every root.

    What this root has mounted, as it has its system image, can't be a VM's disk. Needs no agent. On a
    workstation the old root of the lab that runs is asked.
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
    if not DEVICE.exists() and (lab := _lab()):
        return _list_in(lab, as_json)
    if not (found or DEVICE.exists()):
        raise BadRequestError(
            "no persistent memory here is a block device, and no lab runs",
            "start a lab: multiroot lab up --disk FILE",
        )
    if as_json:
        print_json(found)
        return 0
    rows = [
        (
            each["source"],
            format_size(each["size"]),
            *(yes_or_no(each[key]) for key in ("read_only", "mounted")),
            each["node"],
        )
        for each in found
    ]
    print_table(("source", "size >", "read-only", "mounted", "here"), rows)
    return 0


def _lab() -> LabState | None:
    """The lab that is meant, if this is a workstation where one runs."""
    try:
        return lab_of_agent()
    except PeerLostError:
        return None


def _list_in(lab: LabState, as_json: bool) -> int:
    """What the same command says in the lab's old root, and its exit code."""
    from multiroot.lab.lab import attach

    words = ["multiroot", "disk", "list", *(["--json"] if as_json else [])]
    done = attach(lab.machine.name).run(words)
    for line in done.stdout.splitlines():
        say(line)
    for line in done.stderr.splitlines():
        say(line, err=True)
    return done.returncode
