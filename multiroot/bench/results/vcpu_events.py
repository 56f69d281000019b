# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's virtual CPU did, from the tracepoints of KVM and of the scheduler. Pure.

Kernel: the trace.h of KVM and include/trace/events/{kvm,sched}.h.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from multiroot.bench.results import qemu_calls, trace_lines
from multiroot.bench.results.trace_lines import Event

SIDE = "virtual CPU"
GUEST = "the guest runs"
NOT_YET = "before it enters the guest"
_ASLEEP = "sleeps, "
# The events to switch on, as folders of tracefs; the scheduler's only where a thread of a QEMU is in it. A
# virtual CPU is called "CPU 0/KVM" since QEMU 10.1, before that as QEMU.
EVENTS = (
    "kvm/kvm_entry",
    "kvm/kvm_exit",
    "kvm/kvm_userspace_exit",
    "sched/sched_switch",
    "sched/sched_wakeup",
)
_QEMU = f'{{0}} ~ "{qemu_calls.MAIN}*" || {{0}} ~ "CPU */KVM"'
FILTERS = {
    "sched/sched_switch": f"{_QEMU.format('prev_comm')} || {_QEMU.format('next_comm')}",
    "sched/sched_wakeup": _QEMU.format("comm"),
}

_EXIT = re.compile(r"reason (?:EXIT_)?(\S+)")
_WOKEN = re.compile(r" pid=(\d+) ")
_SWITCH = re.compile(r"prev_pid=(\d+) .*prev_state=(\S+) ==> .*next_pid=(\d+) ")


def parse(text: str, khz: int, start_ns: int, end_ns: int) -> list[tuple[str, int, int]]:
    """What the virtual CPU that entered the guest most often did between two moments, ns on the machine-wide
    clock: what, since when and how long, without a gap in between. Nothing if no virtual CPU is in the trace.
    Where it waits, calls of QEMU's main thread are told.
    """
    events = trace_lines.read(text, khz)
    entries = Counter(event.task for event in events if event.name == "kvm_entry")
    if not entries:
        return []
    task = entries.most_common(1)[0][0]
    found: list[tuple[str, int, int]] = []
    doing, since = NOT_YET, start_ns
    for at_ns, then in [*_changes(events, task), (end_ns, "")]:
        at = min(max(at_ns, start_ns), end_ns)
        if then != doing and at > since:
            found.append((doing, since, at - since))
            since = at
        doing = then
    calls = qemu_calls.calls(events)
    return [
        part
        for each in found
        for part in (qemu_calls.told_apart(*each, calls) if _waits(each[0]) else [each])
    ]


def _waits(doing: str) -> bool:
    return doing == NOT_YET or doing.startswith(_ASLEEP)


def _changes(events: Sequence[Event], task: int) -> list[tuple[int, str]]:
    """When the virtual CPU of thread `task` began to do something else, and what."""
    changes: list[tuple[int, str]] = []
    doing = exited = NOT_YET
    for event in events:
        if event.name in ("sched_switch", "sched_wakeup"):
            if then := _scheduled(event, task, doing, exited):
                changes.append((event.at_ns, then))
            continue
        if event.task != task:
            continue
        if event.name == "kvm_entry":
            doing = GUEST
        elif event.name == "kvm_exit":
            reason = _EXIT.search(event.rest)
            exited = f"exit {reason[1].lower() if reason else '?'}"
            doing = f"KVM, {exited}"
        elif event.name == "kvm_userspace_exit":
            doing = f"QEMU, {exited}"
        else:
            continue
        changes.append((event.at_ns, doing))
    return changes


def _scheduled(event: Event, task: int, doing: str, exited: str) -> str:
    """What thread `task` begins to do by an event of the scheduler, "" if that is about others."""
    ready, asleep = f"waits for a CPU, {exited}", f"{_ASLEEP}{exited}"
    if event.name == "sched_wakeup":
        woken = _WOKEN.search(event.rest)
        return ready if woken and int(woken[1]) == task else ""
    switch = _SWITCH.search(event.rest)
    if switch and int(switch[3]) == task:
        return doing if doing != NOT_YET else f"QEMU, {NOT_YET}"
    if switch and int(switch[1]) == task:
        return ready if switch[2].startswith("R") else asleep
    return ""
