# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's virtual CPU did, from the tracepoints of KVM and of the scheduler. Pure.

Kernel: the trace.h of KVM and include/trace/events/{kvm,sched}.h.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from multiroot.arch.arch import Exits
from multiroot.bench.results import qemu_calls, trace_lines
from multiroot.bench.results.trace_lines import Event

SIDE = "virtual CPU"
GUEST = "the guest runs"
NOT_YET = "before it enters the guest"
_ASLEEP = "sleeps, "
_AT_WORK = ("KVM, ", "QEMU, ")
# The events to switch on beside those that the architecture has, as folders of tracefs; the scheduler's only
# where a thread of a QEMU is in it. A virtual CPU is called "CPU 0/KVM" since QEMU 10.1, before that as QEMU.
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


class Part(NamedTuple):
    """What the virtual CPU did, since when and how long: ns on the machine-wide clock.

    `exits`: 1 for what an exit begins with, 0 for all else.
    """

    doing: str
    start_ns: int
    length: int
    exits: int = 0


class Change(NamedTuple):
    """From `at_ns` on the virtual CPU does `doing`; `about` what, if an event has told."""

    at_ns: int
    doing: str
    about: str = ""
    exits: int = 0

    @property
    def told(self) -> str:
        return f"{self.doing}: {self.about}" if self.about else self.doing


def parse(text: str, khz: int, start_ns: int, end_ns: int, exits: Exits) -> list[Part]:
    """What the virtual CPU that enters the guest most often does between two moments, ns on the machine-wide
    clock, without a gap in between. Nothing if no virtual CPU is in the trace. Where it waits, calls of
    QEMU's main thread are told; `exits` is the architecture's.
    """
    events = trace_lines.read(text, khz)
    task = _task(events, start_ns, end_ns)
    if not task:
        return []
    story = _Story(task, exits)
    for event in events:
        story.hear(event)
    calls = qemu_calls.calls(events)
    return [
        part
        for each in _between(story.changes, start_ns, end_ns)
        for part in (
            (Part(*told) for told in qemu_calls.told_apart(*each[:3], calls))
            if _waits(each.doing)
            else [each]
        )
    ]


def _task(events: Sequence[Event], start_ns: int, end_ns: int) -> int:
    """The virtual CPU's thread, 0 if there is none. In that time: within one kernel it changes."""
    entries = [event for event in events if event.name == "kvm_entry"]
    inside = [event for event in entries if start_ns <= event.at_ns <= end_ns]
    if not inside:
        # One that sleeps all the time is the last that entered before, or else the first that does later.
        earlier = [event for event in entries if event.at_ns < start_ns]
        inside = earlier[-1:] or entries[:1]
    found = Counter(event.task for event in inside)
    return found.most_common(1)[0][0] if found else 0


def _between(changes: Sequence[Change], start_ns: int, end_ns: int) -> list[Part]:
    """The parts of the time between two moments; a change to what is done anyway is none, but for exits."""
    found: list[Part] = []
    doing, since, exits = NOT_YET, start_ns, 0
    for change in [*changes, Change(end_ns, "", "", exits=1)]:
        at = min(max(change.at_ns, start_ns), end_ns)
        then = change.told
        if then == doing and not change.exits:
            continue
        if at > since:
            found.append(Part(doing, since, at - since, exits))
            since = at
        # One before the time that is asked for is not counted in it.
        doing, exits = then, change.exits if change.at_ns >= start_ns else 0
    return found


def _waits(doing: str) -> bool:
    return doing == NOT_YET or doing.startswith(_ASLEEP)


class _Story:
    """When a virtual CPU began to do something else, and what."""

    def __init__(self, task: int, exits: Exits) -> None:
        """`task` is the thread of the virtual CPU."""
        self.changes: list[Change] = []
        self._task = task
        self._told_by = exits
        self._doing = self._exited = NOT_YET
        self._about = ""
        self._since = 0  # the change that the last exit began with

    def hear(self, event: Event) -> None:
        """The next event."""
        if event.name in ("sched_switch", "sched_wakeup"):
            if then := self._scheduled(event):
                self._change(event, then)
        elif event.task != self._task:
            return
        elif event.name == "kvm_entry":
            self._doing, self._about = GUEST, ""
            self._change(event, GUEST)
        elif event.name == "kvm_exit":
            reason = _EXIT.search(event.rest)
            self._exited = f"exit {reason[1].lower() if reason else '?'}"
            self._doing, self._about, self._since = f"KVM, {self._exited}", "", len(self.changes)
            self._change(event, self._doing, exits=1)
        elif event.name == "kvm_userspace_exit":
            self._doing = f"QEMU, {self._exited}"
            self._change(event, self._doing)
        elif self._doing not in (GUEST, NOT_YET) and not self._about:
            self._about = self._told_by.about(event.name, event.rest)
            # It comes in the middle of the exit. The first that is told is what the exit is for.
            for number in range(self._since, len(self.changes)) if self._about else ():
                self.changes[number] = self._told(self.changes[number])

    def _change(self, event: Event, doing: str, exits: int = 0) -> None:
        self.changes.append(self._told(Change(event.at_ns, doing, exits=exits)))

    def _told(self, change: Change) -> Change:
        """With what the exit is for, but for when nobody works on it."""
        return change._replace(about=self._about) if change.doing.startswith(_AT_WORK) else change

    def _scheduled(self, event: Event) -> str:
        """What the virtual CPU begins to do by an event of the scheduler, "" if that is about others."""
        ready, asleep = f"waits for a CPU, {self._exited}", f"{_ASLEEP}{self._exited}"
        if event.name == "sched_wakeup":
            woken = _WOKEN.search(event.rest)
            return ready if woken and int(woken[1]) == self._task else ""
        switch = _SWITCH.search(event.rest)
        if switch and int(switch[3]) == self._task:
            return self._doing if self._doing != NOT_YET else f"QEMU, {NOT_YET}"
        if switch and int(switch[1]) == self._task:
            return ready if switch[2].startswith("R") else asleep
        return ""
