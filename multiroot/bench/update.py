# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench update`: a whole update from the command on, beside kexec + PMEM and a machine turned off and on.

Each sample boots a lab machine of its own, starts the VMs in it, and lets them settle. A real update meets a
new root that has just started, so no sample goes on in the machine of another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiroot.bench import workload
from multiroot.bench.contender import Contender, interleave
from multiroot.bench.kexec_pmem import KexecPmem
from multiroot.bench.lab_machine import lab_machine, prepared_machine
from multiroot.bench.names import KEXEC, OURS, REBOOT, UPDATE
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, Sample, read, variant_name
from multiroot.bench.results.view import View
from multiroot.bench.same_kernel import SameKernelVm
from multiroot.errors import BadRequestError, MultirootError
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab import lab as labs
from multiroot.lab.agents import Agents
from multiroot.lab.build import Built
from multiroot.lab.lab import Lab
from multiroot.lab.machine import Machine
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.rpc import client, successor
from multiroot.rpc.progress import ended, follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc, vm_pb2, vm_pb2_grpc
from multiroot.units import GIB, MIB

METRIC = "wall_ns"
RATES = ("zeroing_mb_per_s", "memset_first_mb_per_s", "memset_again_mb_per_s")
METRICS = (METRIC, "served_ns", "blackout_ns", *RATES)
CARVE = 2 * GIB  # room for the QEMUs of all VMs
_ASK_S = 30.0
_UPDATE_S = 900.0  # an emulated machine with eight VMs, on a busy host
_MEMSET = ("python3", "-m", "multiroot.bench.in_root.memset")
_BUTTON_S = 30  # that a guest gets to turn itself off


@dataclass(frozen=True)
class Options:
    """`vms`: numbers of VMs, each with `ram` bytes and a tick each `tick` ms; kexec + PMEM takes one VM."""

    lab: labs.Options
    vms: tuple[int, ...] = (1, 8)
    contenders: tuple[str, ...] = UPDATE
    ram: int = 128 * MIB
    rounds: int = 1
    tick: int = 100
    seed: int = 1

    def checked(self) -> Options:
        """Raises BadRequestError for what makes no sense."""
        for name in self.contenders:
            if name not in UPDATE:
                raise BadRequestError(f"no contender {name!r}", f"there are: {', '.join(UPDATE)}")
        if not self.vms or min(*self.vms, self.rounds, self.tick) < 1:
            raise BadRequestError("numbers of VMs, rounds and ms a tick must be positive")
        return self

    @property
    def kernel(self) -> str:
        """The new kernel's name in the lab."""
        return labs.kernel_name(self.lab.kernels[0] if self.lab.kernels else self.lab.kernel)

    def data(self) -> dict[str, Any]:
        """As kept in a run's header."""
        kernels = {"kernel": self.lab.kernel, "kernels": list(self.lab.kernels)}
        kept = {name: getattr(self, name) for name in ("ram", "rounds", "tick")}
        return {"lab": kernels, **kept, "vms": list(self.vms), "contenders": list(self.contenders)}

    def variant(self, count: int) -> str:
        """What a contender's name says of the number of VMs, if there are several."""
        return f"{count} VM{'s' * (count > 1)}" if len(self.vms) > 1 else ""


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on."""
    options = options.checked()
    with closing(Recorder(out / "samples.jsonl")) as recorder:
        with lab_machine(replace(options.lab, vms=1, vm_memory=options.ram), phases) as (machine, agents):
            found = provenance.versions(machine, agents)
        recorder.header(provenance.header("update", options.seed, options.data(), found))
        interleave(contenders(options, phases), options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def contenders(options: Options, phases: Phases) -> list[Contender]:
    """Those that were asked for, with each number of VMs."""
    made: list[Contender] = []
    for count in sorted(set(options.vms)):
        stage = Stage(options, count, phases)
        if OURS in options.contenders:
            made.append(Update(stage))
        if REBOOT in options.contenders:
            made.append(Reboot(stage))
    if KEXEC in options.contenders:
        made.append(Kexec(Stage(options, 1, phases)))
    return made


def view(options: Options) -> View:
    """Ratios are to kexec + PMEM, or else to the machine that is turned off and on."""
    base = next((each for each in (KEXEC, REBOOT) if each in options.contenders), OURS)
    count = 1 if base == KEXEC else min(options.vms)
    base, ours = (variant_name(each, options.variant(count)) for each in (base, OURS))
    return View(METRIC, base, ours, METRICS, also=("served_ns", "blackout_ns"))


class Stage:
    """Lab machines in which so many VMs run."""

    def __init__(self, options: Options, count: int, phases: Phases) -> None:
        self.options = options
        self.variant = options.variant(count)
        self.phases = phases
        self._append = workload.words(period_ms=options.tick)
        self.names = [f"vm{number + 1}" for number in range(count)]

    def prepare(self) -> tuple[Machine, Built]:
        """What a machine is booted from. There is room for one VM more: kexec + PMEM keeps a state in it."""
        memory = (len(self.names) + 1) * self.options.ram
        return labs.prepare(replace(self.options.lab, vms=1, vm_memory=memory, carve=CARVE), self.phases)

    @contextmanager
    def machine(self, prepared: tuple[Machine, Built] | None = None) -> Iterator[tuple[Lab, Agents]]:
        """One that has just booted, and ends with this."""
        with prepared_machine(*(prepared or self.prepare()), self.phases) as both:
            yield both

    def start(self, agents: Agents) -> None:
        """All VMs, until each has ticked for a while."""
        for name in self.names:
            agents.run(
                vm_pb2.VmDefinition(
                    name=name, guest="ticker", ram_bytes=self.options.ram, cpus=1, append=self._append
                )
            )
        self.settle(agents)

    def settle(self, agents: Agents) -> None:
        """Wait until each VM ticks in the root that answers for "old"."""
        for name in self.names:
            agents.ticks(name, "old", workload.enough_ticks(self._append), workload.BOOT_TIMEOUT_S)


class Update:
    """`multiroot update`, until the new root has all that the old one had."""

    def __init__(self, stage: Stage) -> None:
        self.name = variant_name(OURS, stage.variant)
        self._stage = stage

    def prepare(self) -> None:
        """Each sample boots its own machine."""

    def sample(self) -> list[Sample]:
        with self._stage.machine() as (machine, agents):
            memset = [float(rate) for rate in machine.run(_MEMSET).stdout.split()]  # it is idle
            self._stage.start(agents)
            offset = agents.clock_offset()
            began = time.monotonic_ns()
            steps = self._update(machine)
            wall = time.monotonic_ns() - began
            with Agents(machine.agent_address) as later:
                self._stage.settle(later)
        stood = blackouts(steps, self._stage.names)
        values = {
            METRIC: float(wall),
            "served_ns": float(max(end for _, end in stood) - offset - began),
            "blackout_ns": float(max(end - start for start, end in stood)),
            **dict(zip(RATES, (rate / 1e6 for rate in (zeroing(steps), *memset)), strict=True)),
        }
        return [Sample(self.name, 0, values, tuple(steps))]

    def _update(self, machine: Lab) -> list[Phase]:
        """All of its phases, those of the new root with them."""
        steps: list[Phase] = []
        launch = coordinator_pb2.LaunchRequest(kernel=self._stage.options.kernel)
        request = coordinator_pb2.UpdateRequest(launch=launch, terms=to_proto(PATIENT))
        with translated("the old root's agent"), client.connect(machine.agent_address) as channel:
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            old = stub.GetState(coordinator_pb2.GetStateRequest(), timeout=_ASK_S).root
            follow(stub.Update(request), self._stage.phases.publish, ended(steps.append))
        successor.wait(
            machine.agent_address,
            old,
            steps.append,
            until=successor.COMPLETE,
            timeout_s=_UPDATE_S,
            ended=machine.state.ending,
        )
        return steps

    def close(self) -> None:
        """Each sample has ended its machine."""


def blackouts(steps: Iterable[Phase], names: Iterable[str]) -> list[tuple[int, int]]:
    """When each VM stood still and when it ran again, ns on the TSC clock; MultirootError if one did not."""
    found: list[tuple[int, int]] = []
    inside = [each for each in steps if each.blackout]
    for name in names:
        parts = [each for each in inside if each.attrs.get("vm") == name]
        if not parts:
            raise MultirootError(f"{name} was not handed over")
        start = min(each.start_ns for each in parts)
        found.append((start, max(each.end_ns or each.start_ns for each in parts)))
    return found


def zeroing(steps: Iterable[Phase]) -> float:
    """How fast the old root's memory was overwritten, in bytes per second; MultirootError if it was not."""
    pieces = [each for each in steps if each.name == PhaseName.ZERO_MEMORY and each.duration_ns]
    if not pieces:
        raise MultirootError("the new root has zeroed no memory")
    size = sum(int(each.attrs["bytes"]) for each in pieces)
    return size * 1e9 / sum(each.duration_ns or 0 for each in pieces)


class Reboot:
    """All VMs are shut down, the machine is turned off and on, and they boot again."""

    def __init__(self, stage: Stage) -> None:
        self.name = variant_name(REBOOT, stage.variant)
        self._stage = stage

    def prepare(self) -> None:
        """Each sample boots its own machines."""

    def sample(self) -> list[Sample]:
        prepared = self._stage.prepare()
        with self._stage.machine(prepared) as (machine, agents):
            self._stage.start(agents)
            began = time.monotonic_ns()
            self._shut_down(machine)
        with self._stage.machine(prepared) as (_, agents):
            self._stage.start(agents)
            wall = float(time.monotonic_ns() - began)
        # The first VM stands from the button on, and the last one ticks at the end.
        return [Sample(self.name, 0, {METRIC: wall, "served_ns": wall, "blackout_ns": wall})]

    def _shut_down(self, machine: Lab) -> None:
        with translated("the root's agent"), client.connect(machine.agent_address) as channel:
            stub = vm_pb2_grpc.VmServiceStub(channel)
            for name in self._stage.names:
                request = vm_pb2.StopVmRequest(name=name, force=True, timeout_s=_BUTTON_S)
                stub.Stop(request, timeout=_BUTTON_S + _ASK_S)

    def close(self) -> None:
        """Each sample has ended its machines."""


class Kexec:
    """kexec + PMEM with one VM, in a machine of its own."""

    def __init__(self, stage: Stage) -> None:
        self.name = variant_name(KEXEC, stage.variant)
        self._stage = stage

    def prepare(self) -> None:
        """Each sample boots its own machine."""

    def sample(self) -> list[Sample]:
        options = self._stage.options
        with self._stage.machine() as (machine, agents):
            append = workload.words(period_ms=options.tick)
            vm = SameKernelVm(machine, name="carried", ram_bytes=options.ram, cpus=1, append=append)
            inner = KexecPmem(machine, agents, vm, options.kernel)
            inner.prepare()
            (taken,) = inner.sample()
        total = taken.values["total_ns"]
        values = {METRIC: total, "served_ns": total, "blackout_ns": taken.values["blackout_ns"]}
        return [Sample(self.name, 0, values, taken.phases)]

    def close(self) -> None:
        """Each sample has ended its machine."""
