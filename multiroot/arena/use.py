# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses an arena that is to be made anew: programs of this root, and roots beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from multiroot.arena import layout
from multiroot.arena.atomics import Memory
from multiroot.errors import ConflictError, MultirootError

_OFFSET, _PATH = 2, 5  # fields of a line, see proc_pid_maps(5)


def check_unused(
    path: Path, memory: Memory, lives: Callable[[int], bool], proc: Path = Path("/proc")
) -> None:
    """Raises ConflictError when a program of this root has a VM's RAM in `path` mapped, or when another root
    that lives owns something there. `memory` is the arena's metadata, which may be damaged; `lives` says
    whether a root other than this one is alive.
    """
    users = [*(f"process {pid} has a VM's RAM mapped" for pid in mapping(path, proc))]
    users += [f"root {root} owns {name}" for root, name in owned(memory) if lives(root)]
    if users:
        raise ConflictError(f"{path} is in use: {', '.join(users)}", "end all VMs first: `multiroot vm list`")


def mapping(path: Path, proc: Path = Path("/proc")) -> Iterator[int]:
    """Processes that have more than the metadata of an arena mapped."""
    # Any of the names that a device has.
    wanted = os.path.realpath(path)
    for folder in sorted(proc.glob("[0-9]*"), key=lambda each: int(each.name)):
        # It may end while it is looked at.
        with suppress(OSError):
            lines = (folder / "maps").read_text(errors="surrogateescape").splitlines()
            fields = [line.split(maxsplit=_PATH) for line in lines]
            if any(
                each[_PATH] == wanted and int(each[_OFFSET], 16) >= layout.METADATA_SIZE
                for each in fields
                if len(each) > _PATH
            ):
                yield int(folder.name)


def owned(memory: Memory) -> Iterator[tuple[int, str]]:
    """Owners and names of the table's entries, of those that are damaged, too."""
    for index in range(layout.ENTRY_COUNT):
        base = layout.entry_offset(index)
        owner = layout.unpack_owner(memory.load(base + layout.OWNER_OFFSET))
        if memory.load(base + layout.STATE_OFFSET) != layout.USED or not owner.root:
            continue
        try:
            record = layout.unpack_record(memory.read(base + layout.RECORD_OFFSET, layout.RECORD_SIZE), index)
        except MultirootError:
            yield owner.root, f"entry {index}, which is damaged"
        else:
            yield owner.root, record.name
