# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a trial has come: which kernels it has started, on which consoles they speak, and who lives.

A machine has two consoles, and each root speaks on the one that the root before it has not. So after two
updates a third kernel speaks where the old root's did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from multiroot.lab.lab import Lab
from multiroot.lab.recorder import console_text
from multiroot.verdict.findings import Source, boots
from multiroot.workbench.carry import Reach

# What reports call roots; the last two are of the standard job.
OLD, NEW = "the old root", "the new root"
AFTER_UPDATE, AFTER_NEXT = "the root after the update", "the root after the next update"
THE_GUEST = "the guest"


@dataclass(frozen=True)
class Started:
    """A kernel that was started. `called` is how a report calls its root, `console` where it speaks, `kernel`
    its name in the lab, and `before` how many kernels had told who they are on that console before it.
    """

    called: str
    console: str
    kernel: str
    before: int = 0


@dataclass
class Reached:
    """`first` is the root that answers at the machine's address, `second` the new one beside it. `alone`: the
    old root has retired. `changing`: it is about to, and nobody knows who answers. `lost`: a root died or
    stands still, so nobody is asked any more; `guest_lost`: only the guest is not.
    `reach_guest` leads to a guest that takes commands.
    """

    lab: Lab | None = None
    first: Started | None = None
    second: Started | None = None
    alone: bool = False
    changing: bool = False
    lost: bool = False
    guest_lost: bool = False
    reach_guest: Reach | None = None
    started: list[Started] = field(default_factory=list)

    def start(self, started: Started) -> Started:
        """Note it."""
        self.started.append(started)
        return started

    @property
    def living(self) -> dict[str, Started]:
        """The roots that can be asked, by the names that they are reached by."""
        if self.changing:
            return {}
        return {name: each for name, each in (("old", self.first), ("new", self.second)) if each}

    def kernels_of(self, source: Source) -> set[str]:
        """The kernels that may have spoken: several only where one of them did not tell who it is."""
        there = [each for each in self.started if each.console == source.where]
        before = [each.before for each in there if each.before < source.boot]
        return {each.kernel for each in there if before and each.before == max(before)}


def told_there(folder: Path, console: str) -> int:
    """How many kernels have told on a console who they are."""
    return boots(console_text(folder, console).split("\n"))
