# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs a new root gets: whole cores, never the boot CPU, never another root's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from multiroot import arch
from multiroot.plan.inventory import Cpu, Inventory
from multiroot.plan.refusal import Refusal
from multiroot.plan.request import Request
from multiroot.units import format_cpu_list

Core = tuple[int, ...]


def choose(inventory: Inventory, request: Request) -> tuple[Cpu, ...]:
    """The CPUs in the order in which the new root will number them; Refusal when it can not be."""
    if request.cpus is not None:
        numbers = _checked(inventory, request, set(request.cpus))
    else:
        numbers = _picked(inventory, request)
    return tuple(cpu for cpu in sorted(inventory.cpus, key=lambda c: c.number) if cpu.number in numbers)


def cores(inventory: Inventory) -> tuple[Core, ...]:
    """The machine's cores by their first CPU; a CPU that no sibling knows of is a core of its own."""
    return tuple(sorted({_core_of(inventory, cpu) for cpu in inventory.cpus}))


def free_cores(inventory: Inventory) -> tuple[Core, ...]:
    """Cores that could be given away as a whole."""
    return tuple(core for core in cores(inventory) if not _why_not(inventory, core))


def _core_of(inventory: Inventory, cpu: Cpu) -> Core:
    present = {other.number for other in inventory.cpus}
    return tuple(sorted(({cpu.number} | set(cpu.siblings)) & present))


def _why_not(inventory: Inventory, numbers: Iterable[int]) -> str:
    """What keeps one of these CPUs in its root, "" if nothing does."""
    for cpu in inventory.cpus:
        if cpu.number not in numbers:
            continue
        if cpu.is_boot:
            return f"CPU {cpu.number} is the boot CPU, which can not leave a running root"
        if cpu.owner not in (0, inventory.root):
            return f"CPU {cpu.number} belongs to root {cpu.owner}"
        if cpu.hardware_id is None:
            return f"CPU {cpu.number} is offline and its {arch.current().cpus.id_name} unknown"
    return ""


def _checked(inventory: Inventory, request: Request, wanted: set[int]) -> set[int]:
    """`wanted` itself when it is a set of whole free cores."""
    if not wanted:
        raise Refusal("no CPU requested", conflict=False, mended=replace(request, cpus=None))
    unknown = wanted - {cpu.number for cpu in inventory.cpus}
    if unknown:
        left = tuple(sorted(wanted - unknown)) or None
        raise Refusal(
            f"there is no CPU {format_cpu_list(list(unknown))}",
            f"this root knows {format_cpu_list([cpu.number for cpu in inventory.cpus])}",
            conflict=False,
            mended=replace(request, cpus=left),
        )
    free = free_cores(inventory)
    whole = {number for core in free if wanted & set(core) for number in core}
    mended = replace(request, cpus=tuple(sorted(whole)) or None)
    reason = _why_not(inventory, wanted)
    if reason:
        raise Refusal(reason, conflict=True, mended=mended)
    for core in cores(inventory):
        asked = wanted & set(core)
        if asked and asked != set(core):
            raise Refusal(
                f"CPU {format_cpu_list(list(asked))} shares a core with CPU "
                f"{format_cpu_list(list(set(core) - asked))}",
                "siblings go to one root together",
                conflict=True,
                mended=mended,
            )
    return wanted


def _picked(inventory: Inventory, request: Request) -> set[int]:
    """As many CPUs as requested (else half of the cores), offline cores and high numbers first."""
    online = {cpu.number for cpu in inventory.cpus if cpu.online}
    free = sorted(free_cores(inventory), key=lambda core: (bool(online & set(core)), -core[0]))
    if not free:
        raise Refusal(
            "no CPU can leave this root",
            "it needs a core with neither its own boot CPU nor the machine's",
            conflict=True,
        )
    count = request.cpu_count
    if count is None:
        share = max(1, len(cores(inventory)) // 2)
        return {number for core in free[:share] for number in core}
    if count < 1:
        raise Refusal("no CPU requested", conflict=False, mended=replace(request, cpu_count=None))
    reachable = _sums(free)
    if count not in reachable:
        nearest = min(reachable, key=lambda found: (abs(found - count), found))
        raise Refusal(
            f"{count} CPUs can not leave this root as whole cores",
            f"free: {format_cpu_list([number for core in free for number in core])}",
            conflict=True,
            mended=replace(request, cpu_count=nearest),
        )
    return reachable[count]


def _sums(free: Iterable[Core]) -> dict[int, set[int]]:
    """Every number of CPUs that whole cores add up to, and the first set found that does."""
    reachable: dict[int, set[int]] = {}
    for core in free:
        for count, numbers in [(0, set[int]()), *sorted(reachable.items(), reverse=True)]:
            reachable.setdefault(count + len(core), numbers | set(core))
    return reachable
