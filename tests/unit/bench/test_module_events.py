# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracepoints of both roots as marks on one clock."""

from __future__ import annotations

from multiroot.bench.results import module_events
from multiroot.phases import Phase

KHZ = 2_000_000  # half a ns each tick
TEXT = """# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
          <idle>-0       [001] d.h1. 20000000: doorbell_heard: root=2 value=0x2
 qemu-system-x86-412     [000] b..2. 20000400: link_sent: root=2 value=65226
 a task: root=9 value=1
          <idle>-0       [001] ..s1.  30000000: link_received: root=2 value=66
"""


def test_a_trace_is_read() -> None:
    found = module_events.parse(TEXT, 1, KHZ)
    assert [(mark.name, mark.side, mark.start_ns, mark.duration_ns) for mark in found] == [
        ("doorbell_heard", "multiroot.ko, root 1", 10_000_000, 0),
        ("link_sent", "multiroot.ko, root 1", 10_000_200, 0),
        ("link_received", "multiroot.ko, root 1", 15_000_000, 0),
    ]
    assert [mark.attrs for mark in found[:2]] == [{"peer": 2, "value": 2}, {"peer": 2, "value": 65226}]


def test_only_what_is_near_to_the_blackout_is_kept() -> None:
    found = module_events.parse(TEXT, 1, KHZ)
    phases = [Phase("load", "root 2", 12_000_000, 100, blackout=True), Phase("prepare", "root 1", 0, 10**9)]
    assert module_events.near(found, phases) == found[:2]
    assert module_events.near(found, phases[1:]) == []
