# SPDX-License-Identifier: GPL-2.0-or-later
"""Handoffs with tracepoints on: those of both roots' modules, and those of KVM and the scheduler.

Kernel: Documentation/trace/ftrace.rst, trace_clock; csrc/kmod/core/trace.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multiroot import arch
from multiroot.bench.names import TRACED
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results import guest_gap, module_events, qemu_calls, vcpu_events
from multiroot.bench.results.samples import Sample
from multiroot.errors import CommandError
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.roles import OTHER
from multiroot.rpc.v1 import vm_pb2

ROOTS = ("old", "new")

_TRACING = "cd /sys/kernel/tracing"
# A kernel without FTRACE_SYSCALLS lacks the last of these.
_EVENTS = ("multiroot", *vcpu_events.EVENTS, *qemu_calls.EVENTS)
_FILTERS = vcpu_events.FILTERS | qemu_calls.FILTERS


def _set(events: str, file: str, value: str) -> str:
    command = f"echo {value} >events/{events}/{file}"
    return f"{{ ! test -e events/{events} || {command}; }}" if events in qemu_calls.EVENTS else command


_START = " && ".join((
    f"echo {arch.current().trace_clock} >trace_clock",
    "echo 4096 >buffer_size_kb",
    "echo >trace",
    *(_set(each, "filter", f"'{which}'") for each, which in _FILTERS.items()),
    *(_set(each, "enable", "1") for each in _EVENTS),
))  # fmt: skip
_TAKE = " && ".join((*(_set(each, "enable", "0") for each in _EVENTS), "cat trace"))


class Traced(MultiRoot):
    """Handoffs with the tracepoints on, which are not compared with others."""

    def __init__(
        self, lab: Lab, agents: Agents, pool: Pool, definitions: Sequence[vm_pb2.VmDefinition]
    ) -> None:
        super().__init__(TRACED, pool, definitions)
        self._lab = lab
        self._agents = agents
        self._name = definitions[0].name

    def sample(self) -> list[Sample]:
        self.wake()
        try:
            for root in ROOTS:
                self._trace(root, _START)
            sample = self.hand_over()[-1]
            stretches = self._stretches(sample.phases)
        finally:
            # Also after a failure: the samples of others are not to be traced.
            taken = {root: self._trace(root, _TAKE) for root in ROOTS}
        self.rest()
        marks: list[Phase] = []
        for root, text in taken.items():
            status = self._agents.status(root)
            events = module_events.parse(text, status.root, status.tsc_khz)
            marks += module_events.near(events, sample.phases)
            for stretch in stretches:
                if stretch.giver == (root != self.where):
                    marks += guest_gap.told(stretch, text, status.root, status.tsc_khz)
        values = {"traced_blackout_ns": sample.values["blackout_ns"]}
        return [replace(sample, values=values, phases=(*sample.phases, *marks))]

    def _stretches(self, phases: Sequence[Phase]) -> list[guest_gap.Stretch]:
        stopped = min(phase.start_ns for phase in phases if phase.blackout)
        resumed = max(phase.end_ns or 0 for phase in phases if phase.blackout)
        seen = [self._agents.ticks(self._name, root).seen_ns for root in (OTHER[self.where], self.where)]
        return guest_gap.stretches([*seen[0], *seen[1]], stopped, resumed)

    def _trace(self, root: str, command: str) -> str:
        done = self._lab.run(["sh", "-c", f"{_TRACING} && {command}"], root=root)
        if done.returncode:
            raise CommandError(f"cannot trace in the {root} root: {done.stderr.strip()}")
        return done.stdout
