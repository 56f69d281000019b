# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold after a fault: one copy runs, nothing of it is lost, and everything else is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiroot.errors import MultirootError
from multiroot.faults.fault import Fate, Fault
from multiroot.faults.ground import ACTIVE, OVER, ROOTS, VM, Ground, Sight
from multiroot.roles import OTHER
from multiroot.vm.ticks import Stretch, continuity

SOME_TICKS = 30
ALONE_S = 120.0


def fate_of(sights: Mapping[str, Sight]) -> Fate | None:
    """What became of the VM, seen in all roots that live; None as long as that is not settled."""
    here, there = (sights.get(root) for root in ROOTS)
    if sum(sight.vmms for sight in sights.values()) > 1:
        return None
    for sight, other, fate in ((here, there, Fate.STAYS), (there, here, Fate.GOES)):
        if sight and sight.state == "running" and sight.vmms == 1:
            return fate if other is None or other.state not in ACTIVE else None
    if any(sight.vmms or sight.state in ACTIVE for sight in sights.values()):
        return None
    return Fate.LOST if any(sight.state in OVER for sight in sights.values()) else None


def guest_problems(pieces: list[Stretch], *, blind: bool = False) -> list[str]:
    """What is wrong with a guest's life, told by its console in one root after the other."""
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole.then(piece)
    seen = continuity(whole.ticks)
    if seen is None:
        return ["the guest did not tick"]
    counts = {
        "ticks missing": 0 if blind else len(seen.missing),
        "ticks repeated": len(seen.repeated),
        "bytes of memory bad": seen.bad_bytes,
        "boots too many": max(0, len(seen.boot_ids) - 1),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def alive(ground: Ground, fate: Fate, fault: Fault) -> list[str]:
    """The guest ticks on where it is said to run, which its owner word says too."""
    root = "old" if fate is Fate.STAYS else "new"
    problems = []
    if not fault.blind:
        pieces = [ground.stretch("old")] if root == "new" else []
        problems = guest_problems([*pieces, ground.stretch(root, SOME_TICKS)])
    owner, number = ground.see(root).owner, ground.status(root).root
    if owner != number:
        problems.append(f"root {owner} owns the VM, which runs in root {number}")
    return problems


def goes_there_and_back(ground: Ground, *, blind: bool) -> list[str]:
    """The VM can be handed over again, wherever it is; afterwards it runs in the old root. With `blind`, its
    ticks are seen from the second handoff on.
    """
    problems: list[str] = []
    first = "new" if ground.see("old").state == "running" else "old"
    for to in (first, "old") if first == "new" else (first, "new", "old"):
        giver = OTHER[to]
        try:
            ground.hand_over(to)
            pieces = [ground.stretch(giver), ground.stretch(to, SOME_TICKS)]
        except MultirootError as error:
            return [*problems, f"handing it to the {to} root again: {error}"]
        found = guest_problems(pieces, blind=blind)
        blind = False
        problems += [f"handed to the {to} root again: {each}" for each in found]
    return problems


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What the roots have more or less than before."""
    return [
        f"{what}: {after.get(what)}, before {before.get(what)}"
        for what in sorted(before.keys() | after.keys())
        if before.get(what) != after.get(what)
    ]


def forgotten(ground: Ground) -> list[str]:
    """A lost VM can be stopped, and then nothing of it is left: its name and its memory are free."""
    there = ROOTS if ground.child_state() == "ready" else ("old",)
    root = next(root for root in there if ground.see(root).state in OVER)
    try:
        ground.stop_vm(root)
    except MultirootError as error:
        return [f"stopping what is lost: {error}"]
    left = ground.see(root)
    return [f"{VM} is still {left.state}"] if left.state else []


def fate_alone(ground: Ground, timeout_s: float) -> Fate:
    """What became of the VM when the old root is dead, seen from the new root's console."""
    console = ground.new_roots_console()

    def runs() -> bool:
        seen = console.look(VM)
        return bool(seen["state"] == "running" and seen["vmms"] == 1)

    ground.until(runs, timeout_s, "the VM does not run in the new root, the only one left,")
    return Fate.GOES


def alive_alone(ground: Ground) -> list[str]:
    """The guest ticks on in the new root, the only one left."""
    console = ground.new_roots_console()
    first = console.look(VM)
    ground.until(
        lambda: console.look(VM)["last"] > first["last"] + SOME_TICKS, ALONE_S, "the guest does not tick on"
    )
    seen = console.look(VM)
    what = {"missing": "ticks missing", "repeated": "ticks repeated", "bad": "bytes of memory bad"}
    problems = [f"{seen[key]} {text}" for key, text in what.items() if seen[key]]
    if resets := ground.lab.state.resets():
        problems.append(f"the machine was reset {resets} times")
    return problems
