# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agents of several roots tell, joined into the facts of the whole machine. Pure, without I/O.

Each root is believed about itself. About a VM its owner is believed, and that is who the highest epoch names.
What a silent root has told last is kept, but marked: its root and its VMs are "unknown".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from multiroot.watch.facts import (
    CpuFacts,
    Facts,
    HandoffFacts,
    MemoryKind,
    RangeFacts,
    RootFacts,
    RootState,
    Stage,
    UpdateFacts,
    VmFacts,
)
from multiroot.watch.spare import with_spare

KEPT_HANDOFFS = 16
KEPT_ENDED = 4
OVER = (RootState.ENDED, RootState.CRASHED)
_LASTING = ("committed", "retiring")  # states of an update whose root is about to end
_UNKNOWN = "unknown"
_LOST = "lost"


@dataclass(frozen=True)
class Telling:
    """What the agent of one root has told; `fresh` if it was heard just now, else at `heard_ns`."""

    root: int
    facts: Facts
    fresh: bool
    heard_ns: int = 0


@dataclass
class Memory:
    """What is kept of roots that tell no more."""

    roots: dict[str, RootFacts] = field(default_factory=dict)  # those that have ended
    handoffs: dict[str, HandoffFacts] = field(default_factory=dict)
    update: UpdateFacts = field(default_factory=UpdateFacts)


def join(tellings: Iterable[Telling], memory: Memory) -> Facts:
    """The facts of the whole machine; `memory` is brought up to date."""
    by_root = {each.root: each for each in tellings}
    ordered = [by_root[number] for number in sorted(by_root)]
    told = [each for each in ordered if each.fresh] or ordered
    roots = _roots(by_root, told, memory)
    vms = _vms(by_root, roots)
    _remember(ordered, roots, vms, memory)
    first = told[0].facts if told else Facts()
    return Facts(
        machine=replace(first.machine),
        clock=replace(first.clock),
        cpus=_cpus(by_root, told, roots),
        memory=_memory(ordered, roots),
        roots=roots,
        vms=vms,
        update=memory.update,
        phases={key: phase for each in ordered if each.fresh for key, phase in each.facts.phases.items()},
        handoffs={key: replace(each) for key, each in memory.handoffs.items()},
    )


def _roots(by_root: Mapping[int, Telling], told: Iterable[Telling], memory: Memory) -> dict[str, RootFacts]:
    """Each by itself; of those that are silent, by their neighbours."""
    found: dict[str, RootFacts] = {}
    for telling in told:
        for number, facts in telling.facts.roots.items():
            before = found.get(number)
            if before is None or (before.state not in OVER and facts.state in OVER):
                found[number] = facts
    for number, facts in found.items():
        if facts.state is RootState.ALIVE and int(number) not in by_root:
            # By its heartbeat. We have not heard of it yet.
            found[number] = replace(facts, state=RootState.STARTING)
    for root, telling in by_root.items():
        number = str(root)
        mine = telling.facts.roots.get(number)
        seen = found.get(number)
        if mine is None:
            continue
        if telling.fresh:
            found[number] = mine
        elif seen is not None and seen.state in OVER:
            found[number] = replace(mine, role="", state=seen.state, heard_ns=telling.heard_ns)
        else:
            found[number] = replace(mine, state=RootState.UNKNOWN, heard_ns=telling.heard_ns)
    memory.roots |= {number: facts for number, facts in found.items() if facts.state in OVER}
    for number in sorted(memory.roots, key=int)[:-KEPT_ENDED]:
        del memory.roots[number]
    over = {number: facts for number, facts in memory.roots.items() if number not in found}
    found |= over
    return {number: replace(found[number]) for number in sorted(found, key=int)}


def _state(roots: Mapping[str, RootFacts], root: int) -> RootState:
    facts = roots.get(str(root))
    return facts.state if facts else RootState.UNKNOWN


def _vms(by_root: Mapping[int, Telling], roots: Mapping[str, RootFacts]) -> dict[str, VmFacts]:
    newest: dict[str, VmFacts] = {}
    # One that is silent still says where a VM was, unless somebody knows better.
    for telling in sorted(by_root.values(), key=lambda each: each.fresh, reverse=True):
        if telling.fresh or _state(roots, telling.root) not in OVER:
            for name, vm in telling.facts.vms.items():
                if name not in newest or vm.epoch > newest[name].epoch:
                    newest[name] = vm
    judged = {name: _judged(name, vm, by_root, roots) for name, vm in newest.items()}
    return {name: vm for name, vm in sorted(judged.items()) if vm is not None}


def _judged(
    name: str, vm: VmFacts, by_root: Mapping[int, Telling], roots: Mapping[str, RootFacts]
) -> VmFacts | None:
    """The VM by its owner, as far as that is heard; None if its owner says that it is gone."""
    if vm.owner == 0:
        return replace(vm)
    owner = by_root.get(vm.owner)
    own = owner.facts.vms.get(name) if owner else None
    if owner is not None and owner.fresh:
        if own is None:
            return None
        # Its owner may not have noticed yet that it is.
        return replace(own if own.epoch >= vm.epoch else vm)
    state = _LOST if _state(roots, vm.owner) in OVER else _UNKNOWN
    return replace(own if own and own.epoch >= vm.epoch else vm, state=state)


def _cpus(
    by_root: Mapping[int, Telling], told: Iterable[Telling], roots: Mapping[str, RootFacts]
) -> dict[str, CpuFacts]:
    """Each by the root that has it, if that is heard."""
    found: dict[str, CpuFacts] = {}
    for telling in told:
        for key, cpu in telling.facts.cpus.items():
            if key not in found or cpu.root == telling.root:
                found[key] = cpu
    for key, cpu in found.items():
        owner = by_root.get(cpu.root)
        if cpu.number is None and owner is not None and _state(roots, cpu.root) not in OVER:
            mine = owner.facts.cpus.get(key)
            if mine is not None and mine.root == cpu.root:
                found[key] = mine
    return {key: replace(found[key]) for key in sorted(found, key=_number)}


def _memory(tellings: Iterable[Telling], roots: Mapping[str, RootFacts]) -> dict[str, RangeFacts]:
    """The ranges of all roots that live, and the RAM that none of them has: so nothing moves on a drawing to
    scale when a root ends. What a root has of its own carve is told as the carve.
    """
    living = [each for each in tellings if _state(roots, each.root) not in OVER]
    ranges = [each for telling in living for each in telling.facts.memory.values()]
    carves = [each for each in ranges if each.kind is MemoryKind.CARVE]
    found: dict[str, RangeFacts] = {}
    for each in ranges:
        hidden = each.kind is MemoryKind.SPARE or (
            each.kind is MemoryKind.SYSTEM
            and any(
                carve.root == each.root and carve.start <= each.start < carve.start + carve.size
                for carve in carves
            )
        )
        if not hidden:
            found.setdefault(f"{each.start:#x}", each)
    # A root knows what it has given away, and not what the root has that it was started by.
    heard = {each.root for each in living}
    lives = {int(number) for number in roots if _state(roots, int(number)) not in OVER}
    judges = [each for each in living if all(root in heard for root in lives if root < each.root)]
    spare = (r for each in judges for r in each.facts.memory.values() if r.kind is MemoryKind.SPARE)
    whole = with_spare(found.values(), spare)
    return {f"{each.start:#x}": each for each in whole}


def _remember(
    tellings: Iterable[Telling],
    roots: Mapping[str, RootFacts],
    vms: Mapping[str, VmFacts],
    memory: Memory,
) -> None:
    tellings = list(tellings)
    for telling in tellings:
        for key, each in telling.facts.handoffs.items():
            gap = memory.handoffs[key].gap_ns if key in memory.handoffs else 0
            memory.handoffs[key] = replace(each, gap_ns=gap)
    for each in memory.handoffs.values():
        if each.stage in (Stage.PREPARING, Stage.FROZEN) and _state(roots, each.giver) in OVER:
            # It can't tell any more how it went. The owner word can.
            vm = vms.get(each.vm)
            there = vm is not None and (vm.owner, vm.epoch) == (each.taker, each.epoch)
            each.stage = Stage.DONE if there else Stage.STAYED
    newest = sorted(memory.handoffs, key=lambda key: memory.handoffs[key].began_ns)[-KEPT_HANDOFFS:]
    memory.handoffs = {key: memory.handoffs[key] for key in newest}
    memory.update = _update([each for each in tellings if each.fresh], roots, memory.update)


def _update(fresh: list[Telling], roots: Mapping[str, RootFacts], before: UpdateFacts) -> UpdateFacts:
    """The one that is under way, or else the last one."""
    busy = [each.facts.update for each in fresh if _has_begun(each.facts.update)]
    if busy:
        return replace(busy[0])
    if not fresh:
        return before
    newest = fresh[-1].facts.update
    if before.state in _LASTING and before.root != newest.root:
        if _state(roots, before.root) not in OVER:
            return before
        # Its root has ended by it, as it should. Its steps are told until the next one begins.
        steps = {
            name: replace(step, edge="done") if name == "retire" else step
            for name, step in before.steps.items()
        }
        return replace(newest, steps=steps)
    if newest.taking_over and not any(step.edge for step in newest.steps.values()):
        return replace(newest, steps=before.steps or newest.steps)
    return replace(newest)


def _has_begun(update: UpdateFacts) -> bool:
    return (
        update.state != "idle"
        or bool(update.wanted)
        or any(step.edge in ("begin", "undo") for step in update.steps.values())
    )


def _number(key: str) -> int:
    return int(key) if key.isdecimal() else 0
