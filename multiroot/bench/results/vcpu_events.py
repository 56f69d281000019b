# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's virtual CPU did, from the tracepoints of KVM and of the scheduler. Pure.

Kernel: Documentation/trace/ftrace.rst; the trace.h of KVM and include/trace/events/{kvm,sched}.h.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SIDE = "virtual CPU"
GUEST = "the guest runs"
NOT_YET = "before it enters the guest"
# The events to switch on, as folders of tracefs; the scheduler's only where a thread of a QEMU is in it. Its
# virtual CPUs have no name of their own.
EVENTS = (
    "kvm/kvm_entry",
    "kvm/kvm_exit",
    "kvm/kvm_userspace_exit",
    "sched/sched_switch",
    "sched/sched_wakeup",
)
FILTERS = {
    "sched/sched_switch": 'prev_comm ~ "qemu-system*" || next_comm ~ "qemu-system*"',
    "sched/sched_wakeup": 'comm ~ "qemu-system*"',
}

_LINE = re.compile(r"^.*-(?P<task>\d+)\s+\[\d+\]\s+\S+\s+(?P<at>\d+): (?P<event>\w+): (?P<rest>.*)$")
_EXIT = re.compile(r"reason (?:EXIT_)?(\S+)")
_WOKEN = re.compile(r" pid=(\d+) ")
_SWITCH = re.compile(r"prev_pid=(\d+) .*prev_state=(\S+) ==> .*next_pid=(\d+) ")


@dataclass(frozen=True)
class _Event:
    at_ns: int
    task: int
    name: str
    rest: str


def parse(text: str, khz: int, start_ns: int, end_ns: int) -> list[tuple[str, int, int]]:
    """What the virtual CPU that entered the guest most often did between two moments, ns on the machine-wide
    clock: what, since when and how long, without a gap in between. Nothing if no virtual CPU is in the trace.
    """
    events = [_Event(int(f["at"]) * 1_000_000 // khz, int(f["task"]), f["event"], f["rest"])
              for line in text.splitlines() if (f := _LINE.match(line))]  # fmt: skip
    entries = Counter(event.task for event in events if event.name == "kvm_entry")
    if not entries:
        return []
    task = entries.most_common(1)[0][0]
    found: list[tuple[str, int, int]] = []
    doing, since = NOT_YET, start_ns
    for at_ns, then in [*_changes(sorted(events, key=lambda event: event.at_ns), task), (end_ns, "")]:
        at = min(max(at_ns, start_ns), end_ns)
        if then != doing and at > since:
            found.append((doing, since, at - since))
            since = at
        doing = then
    return found


def _changes(events: Sequence[_Event], task: int) -> list[tuple[int, str]]:
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


def _scheduled(event: _Event, task: int, doing: str, exited: str) -> str:
    """What thread `task` begins to do by an event of the scheduler, "" if that is about others."""
    ready, asleep = f"waits for a CPU, {exited}", f"sleeps, {exited}"
    if event.name == "sched_wakeup":
        woken = _WOKEN.search(event.rest)
        return ready if woken and int(woken[1]) == task else ""
    switch = _SWITCH.search(event.rest)
    if switch and int(switch[3]) == task:
        return doing if doing != NOT_YET else f"QEMU, {NOT_YET}"
    if switch and int(switch[1]) == task:
        return ready if switch[2].startswith("R") else asleep
    return ""
