# SPDX-License-Identifier: GPL-2.0-or-later
"""Handoffs with tracepoints on: ours, and in-place's. They are not compared with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multiroot.bench.names import IN_PLACE, TRACED, traced
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results import guest_gap
from multiroot.bench.results.samples import Sample, variant_name
from multiroot.bench.same_kernel import SameKernel, SameKernelVm
from multiroot.bench.tracer import Tracer
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.roles import OTHER
from multiroot.rpc.v1 import vm_pb2

ROOTS = ("old", "new")
BLACKOUT = "traced_blackout_ns"


class Traced(MultiRoot):
    """Our handoffs of one `kind` of VM."""

    def __init__(
        self,
        lab: Lab,
        agents: Agents,
        pool: Pool,
        definitions: Sequence[vm_pb2.VmDefinition],
        kind: str = "",
    ) -> None:
        super().__init__(variant_name(TRACED, kind), pool, definitions)
        self._vm = definitions[0].name
        self._tracer = Tracer(lab, agents, ROOTS, self._vm)
        self._agents = agents

    def hand_over(self) -> list[Sample]:
        try:
            self._tracer.start()
            sample = super().hand_over()[-1]
            seen = stretches(self._agents, self._vm, self.where, sample.phases)
        finally:
            taken = self._tracer.take()
        return [told(sample, self._tracer.marks(taken, sample.phases, seen, OTHER[self.where]))]


class TracedInPlace(SameKernel):
    """In-place's: both QEMUs are in the old root."""

    def __init__(self, lab: Lab, agents: Agents, vm: SameKernelVm, kind: str = "") -> None:
        super().__init__(IN_PLACE, vm, kind)
        self.name = variant_name(traced(IN_PLACE), kind)
        self._tracer = Tracer(lab, agents, ("old",), vm.name)

    def measure(self) -> Sample:
        try:
            self._tracer.start()
            sample = super().measure()
        finally:
            taken = self._tracer.take()
        stopped, resumed = _blackout(sample.phases)
        seen = guest_gap.stretches(self.seen_ns, stopped, resumed)
        return told(sample, self._tracer.marks(taken, sample.phases, seen, "old"))


def stretches(agents: Agents, vm: str, there: str, phases: Sequence[Phase]) -> list[guest_gap.Stretch]:
    """What is looked into of a handoff to the root `there`."""
    seen = [agents.ticks(vm, root).seen_ns for root in (OTHER[there], there)]
    return guest_gap.stretches([*seen[0], *seen[1]], *_blackout(phases))


def told(sample: Sample, marks: Sequence[Phase]) -> Sample:
    """As a sample that no other is compared with."""
    values = {BLACKOUT: sample.values["blackout_ns"]}
    return replace(sample, values=values, phases=(*sample.phases, *marks))


def _blackout(phases: Sequence[Phase]) -> tuple[int, int]:
    inside = [phase for phase in phases if phase.blackout]
    stopped = min((phase.start_ns for phase in inside), default=0)
    return stopped, max((phase.end_ns or 0 for phase in inside), default=0)
