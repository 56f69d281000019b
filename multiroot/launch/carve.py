# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking CPUs and memory blocks from this root, and giving them back, through sysfs.

Every function does nothing to what is already as wanted and, when it fails, puts back what it changed.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multiroot.errors import BadRequestError, ConflictError, MultirootError

if TYPE_CHECKING:
    from multiroot.plan.planner import Plan

SYS = Path("/sys")

# A kernel refuses to switch any CPU while it probes a PCI device (pci_call_probe() in its pci-driver.c), and
# tells nobody when that is over. It tries for 620 ms itself to bring one online, and not at all to take one
# offline. A probe of a disk reads from it, and ends when the disk answers or the driver gives it up.
CPU_PATIENCE_S = 30.0
FIRST_RETRY_S = 0.02
LONGEST_RETRY_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """What was changed for a plan, which is what has to be put back: CPU and memory block numbers."""

    cpus: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()


def take(plan: Plan, sys: Path = SYS) -> Taken:
    """Offline the plan's memory blocks and CPUs; ConflictError, and nothing changed, when one resists."""
    blocks = offline_blocks(plan.blocks, sys)
    try:
        cpus = offline_cpus([cpu.number for cpu in plan.cpus], sys)
    except MultirootError:
        online_blocks(blocks, sys)
        raise
    return Taken(cpus, blocks)


def give_back(taken: Taken, sys: Path = SYS) -> None:
    """Online again what `take` took offline; goes on past failures, then raises MultirootError for all."""
    failures = []
    for give, numbers in ((online_cpus, taken.cpus), (online_blocks, taken.blocks)):
        try:
            give(numbers, sys)
        except MultirootError as error:
            failures.append(str(error))
    if failures:
        raise MultirootError("; ".join(failures), "see the kernel log")


def offline_cpus(numbers: Iterable[int], sys: Path = SYS) -> tuple[int, ...]:
    """Take CPUs offline; returns those that were online. ConflictError names the one that can not be."""
    wanted = [(number, _cpu_switch(number, sys)) for number in numbers]
    return _switch_all(wanted, "0", "1", "CPU {} can not go offline")


def online_cpus(numbers: Iterable[int], sys: Path = SYS) -> tuple[int, ...]:
    """Bring CPUs online; returns those that were offline. ConflictError names the one that can not be."""
    wanted = [(number, _cpu_switch(number, sys)) for number in numbers]
    return _switch_all(wanted, "1", "0", "CPU {} can not come online")


def offline_blocks(numbers: Iterable[int], sys: Path = SYS) -> tuple[int, ...]:
    """Take memory blocks offline; returns those that were online.

    The kernel moves their pages elsewhere first, which takes as long as it takes.
    """
    wanted = [(number, _block_switch(number, sys)) for number in numbers]
    return _switch_all(wanted, "offline", "online_movable", "memory block {} can not go offline")


def online_blocks(numbers: Iterable[int], sys: Path = SYS) -> tuple[int, ...]:
    """Bring memory blocks back, movable so that they can go again; returns those that were offline."""
    wanted = [(number, _block_switch(number, sys)) for number in numbers]
    return _switch_all(wanted, "online_movable", "offline", "memory block {} can not come online")


def _cpu_switch(number: int, sys: Path) -> Path:
    folder = sys / f"devices/system/cpu/cpu{number}"
    if not folder.is_dir():
        raise BadRequestError(f"there is no CPU {number}")
    switch = folder / "online"
    if not switch.exists():
        raise ConflictError(f"CPU {number} can not go offline", "the kernel needs it: it is the boot CPU")
    return switch


def _block_switch(number: int, sys: Path) -> Path:
    switch = sys / f"devices/system/memory/memory{number}/state"
    if not switch.exists():
        raise BadRequestError(f"there is no memory block {number}", "does this kernel have memory hotplug?")
    return switch


def _switch_all(switches: list[tuple[int, Path]], to: str, back: str, failure: str) -> tuple[int, ...]:
    """Write `to` to every switch not there yet; on failure write `back` to those already changed."""
    changed: list[tuple[int, Path]] = []
    for number, switch in switches:
        if _state(switch) == _settled(to):
            continue
        try:
            _order(switch, to)
        except OSError as error:
            _undo(changed, back)
            reason = "it is in use" if error.errno == errno.EBUSY else error.strerror
            raise ConflictError(f"{failure.format(number)}: {reason}", "see the kernel log") from error
        changed.append((number, switch))
    return tuple(number for number, _ in changed)


def _order(switch: Path, order: str) -> None:
    """Write to a switch. Raises OSError; EBUSY of a CPU only when it has lasted for CPU_PATIENCE_S."""
    patient = order in ("0", "1")
    deadline = time.monotonic() + CPU_PATIENCE_S
    pause = FIRST_RETRY_S
    while True:
        try:
            switch.write_text(order)
            return
        except OSError as error:
            if not patient or error.errno != errno.EBUSY or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_RETRY_S)


def _state(switch: Path) -> str:
    return switch.read_text().strip()


def _settled(order: str) -> str:
    """What a switch reads after `order` was written to it."""
    return "online" if order == "online_movable" else order


def _undo(changed: list[tuple[int, Path]], back: str) -> None:
    """Put switches back; the failure that led here is the one to report, so another is only logged."""
    for _, switch in reversed(changed):
        try:
            _order(switch, back)
        except OSError as error:
            log.error("could not write %s to %s: %s", back, switch, error.strerror)
