# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot arena`: look at the arena from inside a root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.commands import Group
from multiroot.cli.output import json_option, print_json, print_table, say
from multiroot.errors import BadRequestError
from multiroot.units import format_size

if TYPE_CHECKING:
    from multiroot.arena.arena import Arena, Entry

device_option = click.option(
    "--device", type=click.Path(path_type=Path), help="The device or file (default: the only one there is)."
)


@click.group(cls=Group)
def arena() -> None:
    """Look at the arena, the memory that guests live in. Works inside a root."""


@arena.command(example="multiroot arena show --json")
@device_option
@json_option
def show(device: Path | None, as_json: bool) -> None:
    """What is in the arena and who owns it.

    Needs no agent. A VM is "lost" when the root that owns it has ended; `multiroot vm forget` frees it.
    """
    data = arena_json(_device(device))
    if as_json:
        print_json(data)
        return
    say(f"{data['device']} ({data['backend']}): {format_size(data['size'])}, {data['uuid']}")
    rows = [
        (
            entry["name"],
            entry["kind"],
            f"{entry['offset']:#x}",
            format_size(entry["size"]),
            entry["root"] or "-",
            entry["epoch"],
            entry["state"] or "-",
            f"{entry['definition']:08x}",
        )
        for entry in data["extents"]
    ]
    for gap in data["free"]:
        rows.append(("(free)", "", f"{gap['offset']:#x}", format_size(gap["size"]), "", "", "", ""))
    print_table(("extent", "kind", "offset >", "size >", "root >", "epoch >", "state", "definition"), rows)


@arena.command("format", example="multiroot arena format --device /dev/dax0.0")
@device_option
@click.option("--force", is_flag=True, help="Even if there is something already; VMs in it are forgotten.")
def format_device(device: Path | None, force: bool) -> None:
    """Make an empty arena. Only while no VM runs in it."""
    from multiroot.arena.arena import format_arena
    from multiroot.device.handle import is_another

    path = _device(device)
    format_arena(path, force=force, lives=is_another)
    say(f"{path}: empty arena")


def arena_json(device: Path) -> dict[str, Any]:
    """The arena on `device` as plain data; raises BadRequestError if there is none."""
    from multiroot.arena.arena import Arena
    from multiroot.arena.backing import kind_of
    from multiroot.device.handle import has_ended

    found = Arena(device, 0, has_ended)
    try:
        return {
            "device": str(device),
            "backend": kind_of(device).value,
            "size": found.size,
            "uuid": str(found.superblock.uuid),
            "extents": [
                {
                    "name": entry.name,
                    "kind": entry.record.kind,
                    "offset": entry.record.offset,
                    "size": entry.record.size,
                    "root": entry.owner.root,
                    "epoch": entry.owner.epoch,
                    "state": state_of(found, entry),
                    "definition": entry.record.definition,
                }
                for entry in found.entries()
            ],
            "free": [{"offset": gap.offset, "size": gap.size} for gap in found.free_extents()],
        }
    finally:
        found.close()


def state_of(arena: Arena, entry: Entry) -> str:
    """Of a VM: "owned" by a root that lives, "lost" with its root, "freed" just now. Else nothing."""
    from multiroot.arena.arena import Standing

    if not entry.is_vm:
        return ""
    if not entry.owner.root:
        return "freed"
    return "lost" if arena.standing(entry.owner) is Standing.LOST else "owned"


def _device(named: Path | None) -> Path:
    from multiroot.arena.backing import find_device
    from multiroot.device.handle import DEVICE

    if named:
        return named
    try:
        return find_device().node
    except BadRequestError as error:
        if DEVICE.exists():
            raise
        # How to make persistent memory is nothing to try on a computer that is no root.
        hint = "this is for a root; in a lab: `multiroot lab exec -- multiroot arena show`"
        raise BadRequestError(error.message, hint) from error
