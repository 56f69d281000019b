# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench launch`: a new root coming up, beside a fresh machine that boots the same kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from multiroot.bench.contender import interleave
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.names import FRESH, NEW_ROOT
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read
from multiroot.demo.scenario import first_line_ns
from multiroot.errors import MultirootError
from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import console_text
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases

FRESH_RECIPE = "fresh"  # with as many CPUs as a new root has in the usual machine

Show = Callable[[Phase], None]


@dataclass(frozen=True)
class Options:
    """The new root's kernel is the first of the lab's `kernels`."""

    lab: labs.Options
    rounds: int = 3
    seed: int = 1

    @property
    def kernel(self) -> str:
        return labs.kernel_name(self.lab.kernels[0] if self.lab.kernels else self.lab.kernel)


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    with (
        closing(Recorder(out / "samples.jsonl")) as recorder,
        lab_machine(options.lab, phases) as (machine, agents),
    ):
        kept = {"kernel": options.lab.kernel, "new_kernel": options.kernel, "rounds": options.rounds}
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("launch", options.seed, kept, found))
        both = (
            NewRoot(machine, agents, options.kernel, phases.publish),
            FreshMachine(options, phases),
        )
        interleave(both, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def launch(machine: Lab, agents: Agents, kernel: str, show: Show, append: str = "") -> Sample:
    """Bring a new root up. Times count from its CPU's start, `from_kernel` ones from its first message."""
    offset = agents.clock_offset()
    result, phases = agents.launch(kernel, show, append)
    first = offset + first_line_ns(_console(machine, "new"), not_before=result.start_ns - offset)
    agents.learned("new")
    marks = _marks(agents, "new")
    userspace, complete = marks["initramfs"], marks["complete"]
    took = {phase.name: float(phase.duration_ns or 0) for phase in phases}
    values = {
        "offline_ns": took[PhaseName.OFFLINE],
        "load_ns": took[PhaseName.LOAD],
        "first_message_ns": float(first - result.start_ns),
        "userspace_ns": float(userspace - result.start_ns),
        "ready_ns": float(result.ready_ns - result.start_ns),
        "complete_ns": float(complete - result.start_ns),
        "from_kernel_to_userspace_ns": float(userspace - first),
        "from_kernel_to_ready_ns": float(result.ready_ns - first),
        "from_kernel_to_complete_ns": float(complete - first),
        **{f"at_{name}_ns": float(at_ns - result.start_ns) for name, at_ns in marks.items()},
    }
    parts = (
        Phase(PhaseName.KERNEL_STARTUP, "new root", result.start_ns, userspace - result.start_ns),
        Phase(PhaseName.USERLAND_STARTUP, "new root", userspace, result.ready_ns - userspace),
    )
    return Sample(NEW_ROOT, 0, values, (*phases, *parts))


class NewRoot:
    """Launched and released again."""

    name = NEW_ROOT

    def __init__(self, machine: Lab, agents: Agents, kernel: str, show: Show) -> None:
        self._machine = machine
        self._agents = agents
        self._kernel = kernel
        self._show = show

    def prepare(self) -> None:
        self._agents.status(wait=True)

    def sample(self) -> list[Sample]:
        taken = launch(self._machine, self._agents, self._kernel, self._show)
        self._agents.release(self._show)
        return [taken]

    def close(self) -> None:
        """The last sample has released its root."""


class FreshMachine:
    """The same kernel and system image, booted as a machine's first root with as many CPUs."""

    name = FRESH

    def __init__(self, options: Options, phases: Phases) -> None:
        self._options = replace(
            options.lab,
            name=f"{options.lab.name}-fresh",
            kernel=options.lab.kernels[0] if options.lab.kernels else options.lab.kernel,
            machine=FRESH_RECIPE,
        )
        self._phases = phases

    def prepare(self) -> None:
        """Each sample boots its own."""

    def sample(self) -> list[Sample]:
        with lab_machine(self._options, self._phases) as (machine, agents):
            first = agents.clock_offset() + first_line_ns(_console(machine, "old"), not_before=0)
            agents.learned("old")
            marks = _marks(agents, "old")
        values = {
            "from_kernel_to_userspace_ns": float(marks["initramfs"] - first),
            "from_kernel_to_ready_ns": float(marks["ready"] - first),
            "from_kernel_to_complete_ns": float(marks["complete"] - first),
        }
        return [Sample(FRESH, 0, values)]

    def close(self) -> None:
        """Each sample has ended its own."""


def _marks(agents: Agents, root: str) -> dict[str, int]:
    """When a root's start came to each of its marks, ns on its machine's TSC clock. Raises MultirootError."""
    marks = {mark.name: mark.at_ns for mark in agents.status(root, wait=True).marks}
    if missing := {"initramfs", "ready", "complete"} - set(marks):
        raise MultirootError(
            f"the {root} root has no mark {', '.join(sorted(missing))}", f"it has {', '.join(marks)}"
        )
    return marks


def _console(machine: Lab, root: str) -> str:
    return console_text(machine.state.folder, root)
