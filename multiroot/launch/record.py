# SPDX-License-Identifier: GPL-2.0-or-later
"""What `kexec load` leaves for `kexec start` and `kexec stop`, which are processes of their own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiroot import json_files
from multiroot.launch.carve import Taken
from multiroot.launch.load import Entry

if TYPE_CHECKING:
    from multiroot.plan.planner import Plan

RECORD = Path("/run/multiroot/loaded.json")
_VERSION = 1


@dataclass(frozen=True)
class Loaded:
    """A new root between load and stop. `boot_id` is this root's: a record of an earlier boot is void."""

    boot_id: str
    root: int
    release: str
    command_line: str
    tsc_khz: int
    plan: Plan
    taken: Taken
    entry: Entry
    start_tsc: int = 0  # TSC of the first startup IPI, 0: not started

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "boot_id": self.boot_id,
            "root": self.root,
            "release": self.release,
            "command_line": self.command_line,
            "tsc_khz": self.tsc_khz,
            "plan": self.plan.to_dict(),
            "taken": {"cpus": self.taken.cpus, "blocks": self.taken.blocks},
            "entry": self.entry.to_dict(),
            "start_tsc": self.start_tsc,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Loaded:
        """Raises what `json_files.read` takes for "no record" when `data` is none."""
        from multiroot.plan.planner import Plan

        if data["version"] != _VERSION:
            raise ValueError(f"version {data['version']}")
        return cls(
            boot_id=str(data["boot_id"]),
            root=int(data["root"]),
            release=str(data["release"]),
            command_line=str(data["command_line"]),
            tsc_khz=int(data["tsc_khz"]),
            plan=Plan.from_dict(data["plan"]),
            taken=Taken(*(tuple(int(n) for n in data["taken"][key]) for key in ("cpus", "blocks"))),
            entry=Entry.from_dict(data["entry"]),
            start_tsc=int(data["start_tsc"]),
        )


def this_boot(proc: Path = Path("/proc")) -> str:
    """The running kernel's boot id."""
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


def save(loaded: Loaded, path: Path = RECORD) -> None:
    """Write the record so that a reader sees all of it or none. Raises MultirootError if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.write(path, loaded.to_dict())


def find(path: Path = RECORD, boot_id: str | None = None) -> Loaded | None:
    """The record of this boot, None if there is none. MultirootError for a file that is no record."""
    loaded = json_files.read(
        path, dict, Loaded.from_dict, f"if no new root is loaded, remove it: `rm {shlex.quote(str(path))}`"
    )
    return loaded if loaded and loaded.boot_id == (boot_id or this_boot()) else None


def remove(path: Path = RECORD) -> None:
    """Forget it; nothing happens when there is none."""
    path.unlink(missing_ok=True)
