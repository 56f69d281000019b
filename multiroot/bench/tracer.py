# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracepoints of roots' kernels and of their QEMUs, on for one handoff.

Kernel: Documentation/trace/ftrace.rst, trace_clock; csrc/kmod/core/trace.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiroot import arch
from multiroot.bench.results import guest_gap, module_events, qemu_calls, qemu_trace, vcpu_events
from multiroot.errors import CommandError
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.vm.qemu import own_trace

_TRACING = "cd /sys/kernel/tracing"
# What every kernel has, and what some lack: those without FTRACE_SYSCALLS the calls.
_EVERYWHERE = ("multiroot", *vcpu_events.EVENTS)
_EVENTS = (*_EVERYWHERE, *arch.current().exits.events, *qemu_calls.EVENTS)
_FILTERS = vcpu_events.FILTERS | qemu_calls.FILTERS


def _set(events: str, file: str, value: str) -> str:
    command = f"echo {value} >events/{events}/{file}"
    return command if events in _EVERYWHERE else f"{{ ! test -e events/{events} || {command}; }}"


_START = " && ".join((
    f"mkdir -p {own_trace.FOLDER}",
    f"echo {arch.current().trace_clock} >trace_clock",
    "echo 4096 >buffer_size_kb",
    "echo >trace",
    *(_set(each, "filter", f"'{which}'") for each, which in _FILTERS.items()),
    *(_set(each, "enable", "1") for each in _EVENTS),
))  # fmt: skip
_TAKE = " && ".join((*(_set(each, "enable", "0") for each in _EVENTS), "cat trace"))
# Of a QEMU that has not begun there is none.
_TAKE_QEMU = "{{ ! test -e {file} || cat {file}; }}"


@dataclass(frozen=True)
class Recorded:
    """What one root's kernel and its QEMUs recorded."""

    kernel: str
    saved: str
    loaded: str


class Tracer:
    """Of some of a lab's roots, for the handoff of one VM."""

    def __init__(self, lab: Lab, agents: Agents, roots: Sequence[str], vm: str) -> None:
        self._roots = tuple(roots)
        self._started: list[str] = []
        self._vm = vm
        self._lab = lab
        self._agents = agents

    def start(self) -> None:
        """In all roots. A VMM that waits already records nothing."""
        for root in self._roots:
            self.start_in(root)

    def start_in(self, root: str) -> None:
        """For a root that comes up meanwhile."""
        self._started.append(root)
        self._run(root, _START)

    def take(self) -> dict[str, Recorded]:
        """End it where it was started, also after a failure: the samples of others are not to be traced."""
        taken = {}
        while self._started:
            root = self._started.pop()
            kernel = self._run(root, _TAKE)
            saved, loaded = (
                self._run(root, _TAKE_QEMU.format(file=own_trace.path(what, self._vm)))
                for what in (own_trace.SAVE, own_trace.LOAD)
            )
            self._run(root, f"rm -r {own_trace.FOLDER}")
            taken[root] = Recorded(kernel, saved, loaded)
        return taken

    def marks(
        self,
        taken: dict[str, Recorded],
        phases: Sequence[Phase],
        stretches: Sequence[guest_gap.Stretch],
        giver: str,
    ) -> list[Phase]:
        """What was recorded of the handoff with these phases, from the root `giver`."""
        marks: list[Phase] = []
        for root, recorded in taken.items():
            status = self._agents.status(root)
            events = module_events.parse(recorded.kernel, status.root, status.tsc_khz)
            marks += module_events.near(events, phases)
            for stretch in stretches:
                if stretch.giver == (root == giver) or len(taken) == 1:
                    marks += guest_gap.told(stretch, recorded.kernel, status.root, status.tsc_khz)
        stopped = min((phase.start_ns for phase in phases if phase.blackout), default=0)
        for text in (each for recorded in taken.values() for each in (recorded.saved, recorded.loaded)):
            marks += qemu_trace.phases(qemu_trace.parse(text), stopped)
        return marks

    def _run(self, root: str, command: str) -> str:
        done = self._lab.run(["sh", "-c", f"{_TRACING} && {command}"], root=root)
        if done.returncode:
            raise CommandError(f"cannot trace in the {root} root: {done.stderr.strip()}")
        return done.stdout
