# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of roots on a lab machine, for tests of machines that differ."""

from __future__ import annotations

from collections.abc import Callable

from cli_driver import Cli

from multiroot.demo.generations import Generation, Generations
from multiroot.lab.lab import Lab
from multiroot.phases import Phases
from multiroot.rpc import successor
from multiroot.units import MIB

RELEASES = 2
# Each release and the crash has used up a number, and the first root has the first.
FIRST_TO_TAKE_OVER = RELEASES + 3
COMPLAINTS = ("WARNING:", "BUG:", "Oops", "DMAR: [DMA", "IO_PAGE_FAULT", "INTR-REMAP:")


def come_and_go(lab: Lab, *launch: str, while_both: Callable[[], None] = lambda: None) -> None:
    """A VM goes to a new root and back, and the root is released, two times over; a third one crashes. In the
    end the old root has all CPUs and no VM. `launch` is what `root launch` is told; `while_both` is called
    for each new root that has the VM.
    """
    cli = Cli(lab)
    cpus = lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout
    cli.ok("vm", "run", "web", "--memory", "128M")
    for _ in range(RELEASES):
        cli.ok("root", "launch", *launch)
        cli.ok("handoff", "web")
        while_both()
        cli.ok("handoff", "web", "--to", "old")
        cli.ok("root", "release")
    cli.ok("root", "launch", *launch)
    cli.crash_new_root()
    cli.ok("root", "release")
    assert lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout == cpus
    cli.ok("vm", "rm", "--force", "web")


def take_over(
    lab: Lab, kernel: str, first: int, updates: int, phases: Phases, each: Callable[[], None] = lambda: None
) -> None:
    """So many updates in a row, and a VM goes through all. `first` is the number of the first new root, and
    `each` is called when a root has all that its parent had.
    """
    roots: list[int] = []

    def taken(generation: Generation) -> None:
        roots.append(generation.inventory.root)
        each()

    Generations(lab, 128 * MIB, phases).run([kernel] * updates, taken)
    assert roots == [*range(first, first + updates)]


def update(lab: Lab, *words: str) -> None:
    """Until the old root has retired and the new one has taken over all of the machine. `words` are what
    `update` is told."""
    cli = Cli(lab)
    (before,) = cli.data("root", "list")  # type: ignore[misc]
    cli.ok("update", *words)
    successor.wait(lab.agent_address, before["root"], lambda _: None, until=successor.COMPLETE)


def check_quiet(lab: Lab) -> None:
    """The root that is the only one has nothing to complain of, and nothing has reset the machine."""
    log = lab.run(["dmesg"]).stdout
    assert not [line for line in log.splitlines() if any(words in line for words in COMPLAINTS)]
    assert lab.state.resets() == 0
