# SPDX-License-Identifier: GPL-2.0-or-later
"""What a button would do as things stand, for commands that have no --dry-run. From the facts; pure."""

from __future__ import annotations

from collections.abc import Callable

from multiroot.roles import OTHER
from multiroot.units import MIB
from multiroot.watch.facts import Facts, MemoryKind, RootFacts, RootState

_OVER = (RootState.ENDED, RootState.CRASHED)
_OWN = (MemoryKind.SYSTEM, MemoryKind.CARVE)  # memory that a root has; the rest is everybody's


def root_in(facts: Facts, role: str) -> RootFacts | None:
    """The root that is "old" or "new" now, None if there is none."""
    found = (root for root in facts.roots.values() if root.role == role and root.state not in _OVER)
    return next(found, None)


def vms_in(facts: Facts, role: str) -> list[str]:
    """The names of the VMs that this root owns."""
    root = root_in(facts, role)
    return sorted(name for name, vm in facts.vms.items() if root and vm.owner == root.number)


def lines(name: str, facts: Facts) -> list[str]:
    """What action `name` would do, line by line."""
    return _WOULD[name](facts)


def _hand_over(facts: Facts) -> list[str]:
    return _handed(facts, "new")


def _back(facts: Facts) -> list[str]:
    return _handed(facts, "old")


def _handed(facts: Facts, taker: str) -> list[str]:
    names = vms_in(facts, OTHER[taker])
    where = f"{_said(facts, OTHER[taker])} -> {_said(facts, taker)}"
    if not names:
        return [f"No VM is in {_said(facts, OTHER[taker])}: nothing would move."]
    moved = [f"{each}: {where}; {_mib(facts.vms[each].memory_bytes)} of RAM stay in place" for each in names]
    return [*moved, "only device state would be sent"]


def _abort(facts: Facts) -> list[str]:
    back = [f"{each} would come back to {_said(facts, 'old')}" for each in vms_in(facts, "new")]
    old = root_in(facts, "old")
    given = [root for root in facts.roots.values() if old and root.number > old.number]
    new = max(given, key=lambda root: root.number, default=None)
    if new is None:
        return [*back, f"what is done of the update ({facts.update.state}) would be taken back"]
    ends = [f"root {new.number} would end"] if new.state not in _OVER else []
    return [*back, *ends, f"{_has(facts, new.number)} would go back to {_said(facts, 'old')}"]


def _crash(facts: Facts) -> list[str]:
    stay = [f"{each} would go on in {_said(facts, 'old')}" for each in vms_in(facts, "old")]
    lost = [f"{each} would be lost" for each in vms_in(facts, "new")]
    return [f"the kernel of {_said(facts, 'new')} would panic", *stay, *lost]


def _retire(facts: Facts) -> list[str]:
    old, new = root_in(facts, "old"), _said(facts, "new")
    first = [f"{each} would cross to {new} first" for each in vms_in(facts, "old")]
    if old is None:
        return [*first, "no old root is known: nothing would end"]
    took = f"{_has(facts, old.number)} and {len(old.devices)} PCI functions would become those of {new}"
    return [*first, f"{_said(facts, 'old')} would end", took]


def _said(facts: Facts, role: str) -> str:
    root = root_in(facts, role)
    if root is None:
        return f"the {role} root"
    return f"root {root.number}" + (f" (Linux {root.kernel_release})" if root.kernel_release else "")


def _has(facts: Facts, number: int) -> str:
    """CPUs and memory of a root."""
    cpus = sorted((int(each) for each, cpu in facts.cpus.items() if cpu.root == number), key=int)
    memory = sum(each.size for each in facts.memory.values() if each.root == number and each.kind in _OWN)
    named = f"CPU{'s' * (len(cpus) != 1)} {', '.join(map(str, cpus))}" if cpus else "no CPU"
    return f"{named} and {_mib(memory)} of memory"


def _mib(size: int) -> str:
    return f"{round(size / MIB)} MiB"


_WOULD: dict[str, Callable[[Facts], list[str]]] = {
    "hand-over": _hand_over,
    "back": _back,
    "abort": _abort,
    "crash": _crash,
    "retire": _retire,
}
