# SPDX-License-Identifier: GPL-2.0-or-later
"""`bench scale`: how our handoff grows with the number of VMs and with their RAM."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression

from multiroot.bench import launch, workload
from multiroot.bench.contender import interleave
from multiroot.bench.lab_machine import lab_machine
from multiroot.bench.ours import MultiRoot, Pool
from multiroot.bench.results import provenance
from multiroot.bench.results.samples import Recorder, Run, read
from multiroot.errors import BadRequestError
from multiroot.lab import lab as labs
from multiroot.phases import Phases
from multiroot.rpc.v1 import vm_pb2
from multiroot.units import GIB, MIB, format_size

CARVE = 2 * GIB  # room for the QEMUs of all VMs


@dataclass(frozen=True)
class Options:
    """`vms`: how many VMs of the smallest size; `ram`: sizes, in bytes, of a single one; `tick`: ms from one
    of a guest's ticks to the next; `ready`: each number also with VMMs that wait before the command is given.
    """

    lab: labs.Options
    vms: tuple[int, ...] = (1, 2, 4, 8)
    ram: tuple[int, ...] = (128 * MIB, 512 * MIB, 2 * GIB, 4 * GIB)
    rounds: int = 3
    tick: int = workload.PERIOD_MS
    ready: bool = False
    seed: int = 1

    def checked(self) -> Options:
        """Raises BadRequestError for what makes no sense."""
        numbers = (*self.vms, self.rounds, self.tick)
        if not self.vms or not self.ram or min(numbers) < 1 or min(self.ram) < MIB:
            raise BadRequestError("numbers of VMs, sizes, rounds and ms a tick must be positive")
        return self

    @property
    def arena(self) -> int:
        """RAM of all VMs together, bytes."""
        return max(self.vms) * min(self.ram) + sum(sorted(self.ram)[1:])


def label(vms: int, ram: int) -> str:
    """A contender's name."""
    return f"{vms} x {format_size(ram)}"


def ready(label: str) -> str:
    """The same with VMMs that wait."""
    return f"{label}, prepared"


def run(options: Options, out: Path, phases: Phases) -> Run:
    """Measure, writing to `out`/samples.jsonl as it goes on. The machine ends with it."""
    options = options.checked()
    wanted = replace(options.lab, vms=1, vm_memory=options.arena, carve=CARVE)
    with (
        closing(Recorder(out / "samples.jsonl")) as recorder,
        lab_machine(wanted, phases) as (machine, agents),
    ):
        kept = {
            "kernel": options.lab.kernel,
            "vms": list(options.vms),
            "ram": list(options.ram),
            "rounds": options.rounds,
            "tick": options.tick,
            "ready": options.ready,
        }
        found = provenance.versions(machine, agents)
        recorder.header(provenance.header("scale", options.seed, kept, found))
        kernel = labs.kernel_name(options.lab.kernels[0])
        recorder.sample(launch.launch(machine, agents, kernel, phases.publish))
        points = contenders(options, Pool(machine, agents, phases.publish))
        interleave(points, options.rounds, options.seed, recorder, phases)
    return read(recorder.path)


def contenders(options: Options, pool: Pool) -> list[MultiRoot]:
    """A contender for each number and each size. Those of one size share VMs."""
    smallest = min(options.ram)
    append = workload.words(period_ms=options.tick)
    many = [_definition(f"vm{number + 1}", smallest, append) for number in range(max(options.vms))]
    found = [MultiRoot(label(count, smallest), pool, many[:count]) for count in sorted(set(options.vms))]
    for count in sorted(set(options.vms)) if options.ready else ():
        found.append(MultiRoot(ready(label(count, smallest)), pool, many[:count], ready=True))
    for ram in sorted(set(options.ram)):
        if label(1, ram) not in [each.name for each in found]:
            name = "vm1" if ram == smallest else f"large{ram // MIB}"
            found.append(MultiRoot(label(1, ram), pool, [_definition(name, ram, append)]))
    return found


def _definition(name: str, ram: int, append: str) -> vm_pb2.VmDefinition:
    return vm_pb2.VmDefinition(name=name, guest="ticker", ram_bytes=ram, cpus=1, append=append)


@dataclass(frozen=True)
class Slope:
    """A least-squares line: `per` of one more, and what it would be for none."""

    what: str
    per: float
    fixed: float


def slopes(run: Run) -> list[Slope]:
    """Per VM, and per GiB of RAM, of whichever a run has at least two of; ns."""
    counts, sizes = run.header.options["vms"], run.header.options["ram"]
    lines = {
        "all, per VM": [(n, each) for n in counts for each in run.values(label(n, min(sizes)), "all_ns")],
        "blackout, per VM": [
            (n, each) for n in counts for each in run.values(label(n, min(sizes)), "blackout_ns")
        ],
        "blackout, per GiB": [
            (ram / GIB, each) for ram in sizes for each in run.values(label(1, ram), "blackout_ns")
        ],
    }
    return [_line(what, points) for what, points in lines.items() if len({x for x, _ in points}) > 1]


def _line(what: str, points: list[tuple[float, float]]) -> Slope:
    found = linear_regression([x for x, _ in points], [y for _, y in points])
    return Slope(what, found.slope, found.intercept)
