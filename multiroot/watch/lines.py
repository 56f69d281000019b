# SPDX-License-Identifier: GPL-2.0-or-later
"""What has changed, in words: one line for each thing that a person would tell another. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from multiroot.units import GIB
from multiroot.watch.facts import Facts, HandoffFacts, RootFacts, RootState, Stage, VmFacts


def changes(before: Facts, after: Facts) -> Iterator[str]:
    """One line for each change; nothing of what changes all the time (ticks, console lines)."""
    yield from _machine(before, after)
    for number in sorted(before.roots.keys() | after.roots.keys(), key=int):
        yield from _root(number, before.roots.get(number), after.roots.get(number))
    yield from _cpus(before, after)
    yield from _update(before, after)
    for name in sorted(before.vms.keys() | after.vms.keys()):
        yield from _vm(name, before.vms.get(name), after.vms.get(name))
    for key, handoff in after.handoffs.items():
        if (line := _handoff(before.handoffs.get(key), handoff)) is not None:
            yield line


def _machine(before: Facts, after: Facts) -> Iterator[str]:
    resets = after.machine.resets
    if resets is not None and resets != before.machine.resets and (resets or before.machine.resets):
        yield f"the machine was reset: {resets} times so far"


def _root(number: str, before: RootFacts | None, after: RootFacts | None) -> Iterator[str]:
    if after is None:
        return
    if before is None or before.state is not after.state:
        release = f" ({after.kernel_release})" if after.kernel_release else ""
        ended = after.state in (RootState.ENDED, RootState.CRASHED)
        yield f"root {number}{release} {'has' if ended else 'is'} {after.state}"
    for line in after.splats[-1:]:
        if before is not None and line not in before.splats:
            yield f"root {number} says: {line}"


def _cpus(before: Facts, after: Facts) -> Iterator[str]:
    for key, cpu in after.cpus.items():
        old = before.cpus.get(key)
        if old is not None and (old.root, old.state) != (cpu.root, cpu.state):
            owner = f" of root {cpu.root}" if cpu.root else ""
            yield f"the CPU with hardware id {key} is {cpu.state}{owner}"


def _update(before: Facts, after: Facts) -> Iterator[str]:
    old, new = before.update, after.update
    for name, step in new.steps.items():
        known = old.steps.get(name)
        if step.edge and (known is None or known.edge != step.edge):
            yield f"step {name}: {step.edge}"
    if new.taking_over and new.taking_over != old.taking_over:
        yield f"root {new.root}, taking over: {new.taking_over}"
    for error in (new.error, new.taking_over_error):
        if error and error not in (old.error, old.taking_over_error):
            yield f"the update failed: {error}"


def _vm(name: str, before: VmFacts | None, after: VmFacts | None) -> Iterator[str]:
    if after is None:
        yield f"VM {name} is gone"
        return
    if before is None or (before.state, before.owner, before.epoch) != (
        after.state,
        after.owner,
        after.epoch,
    ):
        owner = f", owned by root {after.owner}, epoch {after.epoch}" if after.owner else ""
        yield f"VM {name} is {after.state}{owner}"
    known = before.notices if before is not None else []
    for notice in after.notices:
        if notice not in known and before is not None:
            yield f"VM {name}: {notice.what}"


def _handoff(before: HandoffFacts | None, after: HandoffFacts) -> str | None:
    """A line when it begins, when it is over, and when its guest's gap is known."""
    way = f"{after.vm} from root {after.giver} to root {after.taker}"
    if before is None or before.stage is not after.stage:
        match after.stage:
            case Stage.PREPARING | Stage.FROZEN:
                return f"handing {way}: {after.stage}"
            case Stage.STAYED:
                return f"{after.vm} stays in root {after.giver}: {after.error or 'it goes on there'}"
            case Stage.DONE:
                return f"handed {way}: {outcome(after)}"
    if after.gap_ns and not before.gap_ns:
        return f"handed {way}: the guest's own gap was {after.gap_ns / 1e6:.1f} ms"
    return None


def outcome(handoff: HandoffFacts) -> str:
    """The figures of one that is done."""
    return ", ".join((*times_of(handoff), *sizes_of(handoff))) or "it runs there"


def times_of(handoff: HandoffFacts) -> list[str]:
    """How long the guest stood still, by its VMM and by itself, as far as that is known."""
    parts = []
    if handoff.resumed_ns:
        parts.append(f"no vCPU ran for {(handoff.resumed_ns - handoff.stopped_ns) / 1e6:.1f} ms")
    if handoff.gap_ns:
        parts.append(f"{handoff.gap_ns / 1e6:.1f} ms from tick to tick")
    return parts


def sizes_of(handoff: HandoffFacts) -> list[str]:
    """What was copied, as far as that is known."""
    parts = []
    if handoff.device_state_bytes:
        parts.append(f"{handoff.device_state_bytes} bytes of device state")
    if handoff.ram_bytes_copied is not None:
        parts.append(f"{handoff.ram_bytes_copied} bytes of RAM copied")
    return parts


def about(size: int) -> str:
    """How much memory a machine has. A firmware keeps some, so it is hardly ever a round number."""
    return f"{size / GIB:.1f} GiB"


def summary(facts: Facts) -> Iterator[str]:
    """The state as it is, a line for each root and VM."""
    machine = facts.machine
    resets = "" if machine.resets is None else f", resets of the machine: {machine.resets}"
    yield f"{machine.cpus} CPUs, {about(machine.memory_bytes)} of memory{resets}"
    yield from changes(Facts(machine=machine, cpus=facts.cpus, update=facts.update), facts)
