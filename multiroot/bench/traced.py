# SPDX-License-Identifier: GPL-2.0-or-later
"""One handoff with the tracepoints of both roots' modules on.

Kernel: Documentation/trace/ftrace.rst, trace_clock; csrc/kmod/core/trace.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multiroot import arch
from multiroot.bench.names import TRACED
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results.module_events import near, parse
from multiroot.bench.results.samples import Sample
from multiroot.errors import CommandError
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.rpc.v1 import vm_pb2

ROOTS = ("old", "new")

_TRACING = "cd /sys/kernel/tracing"
_START = " && ".join((
    f"echo {arch.current().trace_clock} >trace_clock",
    "echo 4096 >buffer_size_kb",
    "echo >trace",
    "echo 1 >events/multiroot/enable",
))  # fmt: skip
_TAKE = "echo 0 >events/multiroot/enable && cat trace"


class Traced(MultiRoot):
    """One handoff with the tracepoints on, which is not compared with others; nothing in later rounds."""

    def __init__(
        self, lab: Lab, agents: Agents, pool: Pool, definitions: Sequence[vm_pb2.VmDefinition]
    ) -> None:
        super().__init__(TRACED, pool, definitions)
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
