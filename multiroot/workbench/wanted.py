# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trial is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

from multiroot.lab.lab import Options
from multiroot.units import MIB
from multiroot.verdict.allow import Allowed
from multiroot.workbench.kselftest import Suite

VM_MEMORY = 256 * MIB
PATIENCE_S = 20.0  # of an ordinary kernel
GUEST_PATIENCE_S = 40.0  # its CPU may be one that is emulated by an emulated one


class Where(StrEnum):
    """Where the command runs."""

    OLD = "old"
    NEW = "new"
    VM = "vm"
    WORKSTATION = "workstation"


class Until(IntEnum):
    """How far the machine has come when the command runs; each step after those before it."""

    BOOT = 0
    LAUNCH = 1
    HANDOVER = 2
    UPDATE = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Wanted:
    """One trial. `lab` has the old root's kernel; `new` is the new one's, as it was given, and `guest` that
    of the guest ("": that of the lab's guests).

    `command` runs in `where` once all is done up to `until`; without one, and without `suites`, the standard
    scenario is played.
    `carried` are files to lie beside it. `timeout_s` is how long it may run, `patience_s` how long a root may
    not answer, `join_timeout_s` how long a new one may take to come up; with None and 0 the kernels decide.
    """

    lab: Options
    new: str
    guest: str = ""
    where: Where = Where.NEW
    until: Until = Until.HANDOVER
    command: tuple[str, ...] = ()
    carried: tuple[Path, ...] = ()
    append_new: str = ""
    append_guest: str = ""
    timeout_s: float | None = None
    patience_s: float | None = None
    retries: int = 0
    join_timeout_s: int = 0
    keep: bool = False
    allow: tuple[Allowed, ...] = ()
    logs: Path | None = None  # a folder to copy to what the consoles said
    suites: tuple[Suite, ...] = ()  # of kselftest, to run in place of a command
    places: tuple[Where, ...] = ()  # where

    @property
    def guest_takes_commands(self) -> bool:
        """Whether something is to run in the guest, which then is one that does not tick."""
        return self.where is Where.VM or Where.VM in self.places
