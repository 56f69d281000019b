# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench memory`: what a second root, its agent and a waiting QEMU cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from multiroot.bench.contender import interleave
from multiroot.bench.in_root.footprint import Footprint
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read
from multiroot.bench.same_kernel import SameKernelVm
from multiroot.errors import CommandError
from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase, Phases
from multiroot.units import MIB

ROOT, KERNEL, AGENT = "new root, all", "new root, its kernel", "agent"
RUNNING, WAITING = "running QEMU", "waiting QEMU"
METRIC = "memory_mib"


@dataclass(frozen=True)
class Options:
    """The new root's kernel is the first of the lab's `kernels`; `ram` of the VM in bytes."""

    lab: labs.Options
    ram: int = 128 * MIB
    rounds: int = 3
    seed: int = 1


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    with (
        closing(Recorder(out / "samples.jsonl")) as recorder,
        lab_machine(options.lab, phases) as (machine, agents),
    ):
        kernel = labs.kernel_name(options.lab.kernels[0])
        kept = {"kernel": options.lab.kernel, "new_kernel": kernel, "ram": options.ram}
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("memory", options.seed, kept, found))
        vm = SameKernelVm(machine, name="vm", ram_bytes=options.ram, cpus=1)
        both = (NewRoot(machine, agents, kernel, phases.publish), Emulators(vm))
        interleave(both, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


class NewRoot:
    """A root that has just joined and runs no VM."""

    name = ROOT

    def __init__(self, machine: Lab, agents: Agents, kernel: str, show: Callable[[Phase], None]) -> None:
        self._machine = machine
        self._agents = agents
        self._kernel = kernel
        self._show = show

    def prepare(self) -> None:
        """Each sample launches its own."""

    def sample(self) -> list[Sample]:
        self._agents.launch(self._kernel, self._show)
        done = self._machine.run(["python3", "-m", "multiroot.bench.in_root.footprint"], root="new")
        self._agents.release(self._show)
        if done.returncode:
            raise CommandError("the new root could not be measured", stderr=done.stderr)
        seen = Footprint(**json.loads(done.stdout))
        return [
            Sample(ROOT, 0, {METRIC: (seen.given - seen.available) / MIB}),
            Sample(KERNEL, 0, {METRIC: (seen.given - seen.total) / MIB}),
            Sample(AGENT, 0, {METRIC: seen.agent / MIB}),
        ]

    def close(self) -> None:
        """The last sample has released its root."""


class Emulators:
    """A VM's QEMU, and one that waits for the VM; without the VM's RAM, which both would map."""

    name = RUNNING

    def __init__(self, vm: SameKernelVm) -> None:
        self._vm = vm

    def prepare(self) -> None:
        self._vm.ask("pause")

    def sample(self) -> list[Sample]:
        seen = self._vm.ask("footprint")
        return [
            Sample(RUNNING, 0, {METRIC: seen["running"] / MIB}),
            Sample(WAITING, 0, {METRIC: seen["waiting"] / MIB}),
        ]

    def close(self) -> None:
        self._vm.close()
