# SPDX-License-Identifier: GPL-2.0-or-later
"""What multiroot.ko sees of a handoff: the tracepoints of both roots' modules, on the clock that they share.

Kernel: Documentation/trace/ftrace.rst, trace_clock "x86-tsc"; csrc/kmod/core/trace.h.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results.samples import Sample
from multiroot.errors import CommandError
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.rpc.v1 import vm_pb2

NAME = "multi-root (traced)"
MODULE = "multiroot.ko"
# Shown: what is this near to the blackout. The agents talk over the same link all the time.
MARGIN_NS = 2_000_000
ROOTS = ("old", "new")

_TRACING = "cd /sys/kernel/tracing"
_START = (
    "echo x86-tsc >trace_clock && echo 4096 >buffer_size_kb && echo >trace && echo 1 >events/multiroot/enable"
)
_TAKE = "echo 0 >events/multiroot/enable && cat trace"
_LINE = re.compile(r"\s(\d+): (\w+): root=(\d+) (?:bytes|events)=(\w+)$")


class Traced(MultiRoot):
    """One handoff with the tracepoints on, which is not compared with others; nothing in later rounds."""

    def __init__(
        self, lab: Lab, agents: Agents, pool: Pool, definitions: Sequence[vm_pb2.VmDefinition]
    ) -> None:
        super().__init__(NAME, pool, definitions)
        self._lab = lab
        self._agents = agents
        self._done = False

    def sample(self) -> list[Sample]:
        if self._done:
            return []
        self._done = True
        for root in ROOTS:
            self._trace(root, _START)
        try:
            sample = super().sample()[-1]
        finally:
            # Also after a failure: the samples of others are not to be traced.
            taken = {root: self._trace(root, _TAKE) for root in ROOTS}
        marks: list[Phase] = []
        for root, text in taken.items():
            status = self._agents.status(root)
            marks += parse(text, status.root, status.tsc_khz)
        values = {"traced_blackout_ns": sample.values["blackout_ns"]}
        return [replace(sample, values=values, phases=(*sample.phases, *near(marks, sample.phases)))]

    def _trace(self, root: str, command: str) -> str:
        done = self._lab.run(["sh", "-c", f"{_TRACING} && {command}"], root=root)
        if done.returncode:
            raise CommandError(f"cannot trace in the {root} root: {done.stderr.strip()}")
        return done.stdout


def parse(text: str, root: int, khz: int) -> list[Phase]:
    """The events in a root's trace, as phases without length; ns on the machine-wide clock."""
    side = f"{MODULE}, root {root}"
    marks = []
    for line in text.splitlines():
        found = _LINE.search(line)
        if found:
            mark = Phase(found[2], side, int(found[1]) * 1_000_000 // khz, 0)
            mark.attrs.update(peer=int(found[3]), value=int(found[4], 0))
            marks.append(mark)
    return marks


def near(marks: Sequence[Phase], phases: Sequence[Phase]) -> list[Phase]:
    """The marks in the blackout among `phases`, or within MARGIN_NS of it."""
    inside = [phase for phase in phases if phase.blackout and phase.end_ns is not None]
    if not inside:
        return []
    first = min(phase.start_ns for phase in inside) - MARGIN_NS
    last = max(phase.end_ns or 0 for phase in inside) + MARGIN_NS
    return [mark for mark in marks if first <= mark.start_ns <= last]


def traced(samples: Sequence[Sample]) -> Sample | None:
    """The traced handoff, if there was one."""
    return next((sample for sample in samples if sample.contender == NAME and sample.phases), None)
