# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench handoff --fresh`: the first handoff into a root that has just started, beside later ones into it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

from multiroot.bench.names import COLD, FIRST, LATER, traced
from multiroot.bench.ours import MultiRoot, Pool, Show
from multiroot.bench.results.samples import Sample
from multiroot.bench.traced import stretches, told
from multiroot.bench.tracer import Tracer
from multiroot.bench.update import blackouts
from multiroot.lab.agents import Agents
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase
from multiroot.rpc.v1 import coordinator_pb2, vm_pb2

EACH = 3  # later handoffs into each new root


class FreshRoot(ABC):
    """Brings a new root up, hands the VMs to it and back, again and again, and ends it.

    The ways back are not compared: they lead into the old root, which is fresh only once. The guests run all
    the time, as those of a real update do.
    """

    kind: str

    def __init__(
        self,
        agents: Agents,
        pool: Pool,
        definitions: Sequence[vm_pb2.VmDefinition],
        kernel: str,
        show: Show,
        tracer: Tracer | None = None,
    ) -> None:
        """With `tracer` the first handoff has tracepoints on, is no other's measure, and is the only one."""
        self.name = traced(self.kind) if tracer else self.kind
        self._tracer = tracer
        self._agents = agents
        self._pool = pool
        self._names = [definition.name for definition in definitions]
        self._ours = MultiRoot(LATER, pool, definitions)
        self._kernel = kernel
        self._show = show

    def prepare(self) -> None:
        self._ours.prepare()

    def sample(self) -> list[Sample]:
        self._ours.wake()
        taken = self._traced_first(self._tracer) if self._tracer else self._first()
        for _ in range(0 if self._tracer else EACH):
            self._ours.hand_over()
            taken += self._ours.hand_over()
        self._ours.hand_over()
        self._agents.release(self._show)
        self._ours.rest()
        return taken

    def close(self) -> None:
        self._ours.close()

    def _traced_first(self, tracer: Tracer) -> list[Sample]:
        tracer.start_in("old")
        try:
            sample = self._first(lambda: tracer.start_in("new"))[-1]
            seen = stretches(self._agents, self._names[-1], "new", sample.phases)
        finally:
            taken = tracer.take()
        marks = tracer.marks(taken, sample.phases, seen, "old")
        return [replace(told(sample, marks), contender=self.name)]

    @abstractmethod
    def _first(self, joined: Callable[[], None] = lambda: None) -> list[Sample]:
        """Bring the new root up and hand the VMs to it; `joined` is called as soon as the root is there."""


class Updated(FreshRoot):
    """By `multiroot update`, which hands the canary over first."""

    kind = FIRST

    def _first(self, joined: Callable[[], None] = lambda: None) -> list[Sample]:
        def show(phase: Phase) -> None:
            self._show(phase)
            if phase.name == PhaseName.JOIN and phase.duration_ns is not None:
                joined()

        steps = self._agents.update_until_handover(self._kernel, show)
        self._pool.moved(self._names, "new")
        samples = []
        for name, (stopped_ns, resumed_ns) in zip(self._names, blackouts(steps, self._names), strict=True):
            result = coordinator_pb2.HandoffResult(name=name, stopped_ns=stopped_ns, resumed_ns=resumed_ns)
            mine = [step for step in steps if step.attrs.get("vm") == name]
            values = self._pool.judge(result, mine)
            del values["sent_bytes"]  # which an update does not tell
            samples.append(Sample(FIRST, 0, values, tuple(mine)))
        return samples


class Launched(FreshRoot):
    """By `multiroot root launch` and `multiroot handoff`."""

    kind = COLD

    def _first(self, joined: Callable[[], None] = lambda: None) -> list[Sample]:
        self._agents.launch(self._kernel, self._show)
        joined()
        return [replace(each, contender=COLD) for each in self._ours.hand_over()]
