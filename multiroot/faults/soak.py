# SPDX-License-Identifier: GPL-2.0-or-later
"""Many handoffs in a row, to and fro, with guests at work: nothing may be lost, and nothing may grow."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import cycle, pairwise
from pathlib import Path
from statistics import fmean, linear_regression, quantiles
from typing import Any

from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.faults import check, handoffs
from multiroot.faults.fault import Fault, Outcome
from multiroot.faults.ground import ROOTS, Ground, definitions
from multiroot.faults.runner import Runner
from multiroot.roles import OTHER
from multiroot.rpc.v1 import vm_pb2
from multiroot.rpc.v1.coordinator_pb2 import HandoffResult
from multiroot.units import MIB
from multiroot.verdict.points import Point, point
from multiroot.vm.ticks import gap_around

# Of each guest: what it writes beside what it checks, MiB/s. It needs more memory for that, bytes. It ticks
# slower than usual: two guests under two layers of emulation share the old root's CPUs.
LOAD = "ticker.dirty=8 ticker.period=20"
VM_MEMORY = 256 * MIB
MEMORY_EVERY = 10  # handoffs
FAULT_EVERY = 25
SOME_TICKS = 5
MOST_ERRORS = 10  # then it is no use to go on
# Handoffs: at first an agent imports, fills its caches, and the phases that it keeps (agent.py, KEPT_PHASES).
WARM_UP = 200
SLOPE_BOUND = 2048  # bytes for each handoff: 2 MiB in a thousand, of some 60
SAMPLES_LEAST = 10  # after the warm-up; fewer tell nothing
_AGENT_MEMORY = "grep VmRSS /proc/$(pgrep -o -f '[/]usr/bin/multirootd')/status"


@dataclass(frozen=True)
class Handed:
    """One VM's handoff. Times in ns: the VMM's blackout, the guest's largest gap, and the whole command, that
    of all VMs.
    """

    number: int
    vm: str
    to: str
    blackout_ns: int
    gap_ns: int
    total_ns: int


@dataclass(frozen=True)
class Memory:
    """An agent's resident memory, bytes, after so many handoffs."""

    number: int
    root: str
    bytes: int


@dataclass(frozen=True)
class Failed:
    """What went wrong with handoff `number`."""

    number: int
    vm: str
    problem: str


@dataclass
class Seen:
    """Everything that a soak saw."""

    handed: list[Handed] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    faults: list[Outcome] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Counts, quantiles in ms, and how each agent's memory rose, in bytes for each handoff."""
        return {
            "handoffs": len(self.handed),
            "errors": len(self.failed),
            "faults": len(self.faults),
            "faults_held": sum(outcome.held for outcome in self.faults),
            "blackout_ms": spread([each.blackout_ns / 1e6 for each in self.handed if each.blackout_ns]),
            "gap_ms": spread([each.gap_ns / 1e6 for each in self.handed]),
            "total_ms": spread([each.total_ns / 1e6 for each in self.handed]),
            "memory": {
                root: {**asdict(each), "verdict": each.verdict} for root, each in self.grown().items()
            },
        }

    def points(self) -> list[Point]:
        """A point for the handoffs, one for each fault, and one for each agent's memory."""
        told = [f"handoff {each.number} of {each.vm}: {each.problem}" for each in self.failed]
        well = bool(self.handed) and not self.failed
        handoffs = point(
            "every handoff went well", well, f"{len(self.handed)} handoffs, {len(self.failed)} errors", told
        )
        faults = [
            point(f"fault {number}: {each.name}", each.held, each.fate, each.problems)
            for number, each in enumerate(self.faults, 1)
        ]
        memory = [
            point(f"the memory of the {root} root's agent", each.verdict != "grew", f"it {each.verdict}")
            for root, each in self.grown().items()
        ]
        return [handoffs, *faults, *memory]

    def grown(self) -> dict[str, Growth]:
        """How each agent's memory rose."""
        return {root: growth([each for each in self.memory if each.root == root]) for root in ROOTS}

    @property
    def held(self) -> bool:
        """No error, every fault held, no agent's memory grew as far as this run can tell."""
        return (
            bool(self.handed)
            and not self.failed
            and all(outcome.held for outcome in self.faults)
            and all(each.verdict != "grew" for each in self.grown().values())
        )


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest; all 0 without values."""
    if not values:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {name: round(cuts[at - 1], 3) for name, at in (("p50", 50), ("p95", 95), ("p99", 99))} | {
        "max": round(max(values), 3)
    }


@dataclass(frozen=True)
class Growth:
    """An agent's memory after the first and the last handoff that it was read after, bytes, and how it rises
    after the warm-up: bytes for each handoff, and how wrong that may be. `samples` were taken after it.
    """

    first: int
    last: int
    slope: float
    error: float
    samples: int

    @property
    def verdict(self) -> str:
        """ "grew" and "flat" are certain. A run that is too short for either says so."""
        if self.samples < SAMPLES_LEAST:
            return "too short to tell"
        if self.slope - self.error > SLOPE_BOUND:
            return "grew"
        return "flat" if self.slope + self.error <= SLOPE_BOUND else "too short to tell"


def growth(samples: Sequence[Memory]) -> Growth:
    """The regression line through the samples after the warm-up, with twice its standard error."""
    if not samples:
        return Growth(0, 0, 0.0, 0.0, 0)
    kept = [each for each in samples if each.number > WARM_UP]
    slope = error = 0.0
    if len(kept) > 2:
        numbers, sizes = [each.number for each in kept], [each.bytes for each in kept]
        line = linear_regression(numbers, sizes)
        slope = line.slope
        off = [size - line.intercept - slope * number for number, size in zip(numbers, sizes, strict=True)]
        error = 2 * (_independent(off) / sum((number - fmean(numbers)) ** 2 for number in numbers)) ** 0.5
    return Growth(samples[0].bytes, samples[-1].bytes, round(slope, 1), round(error, 1), len(kept))


def _independent(off: Sequence[float]) -> float:
    """The variance around the line, were each sample independent of the one before.

    They are not: memory that was given back late is in several. So there are fewer than it seems.
    """
    squares = sum(each * each for each in off)
    if not squares:
        return 0.0
    alike = min(0.9, max(0.0, sum(a * b for a, b in pairwise(off)) / squares))
    return squares / (len(off) - 2) * (1 + alike) / (1 - alike)


class Soak:
    """Hands all VMs of a ground to and fro. What it sees goes to `file`, a line of JSON each, as it comes."""

    def __init__(self, ground: Ground, file: Path | None, progress: Callable[[Seen], object]) -> None:
        self._ground = ground
        self._file = file
        self._progress = progress
        self.seen = Seen()

    def run(self, count: int, *, faults: bool = False, seed: int = 1) -> None:
        """At least so many handoffs; with `faults`, one at random now and then.

        Ctrl-C leaves `seen` as it is.
        """
        ground = self._ground
        ground.ready(joined=True)
        names = [definition.name for definition in ground.vms]
        machines = {definition.name: definition.machine for definition in ground.vms}
        began = datetime.now(UTC).isoformat(timespec="seconds")
        self._write("header", {"began": began, "vms": machines, "seed": seed, **ground.versions()})
        try:
            self._run(count, names, random.Random(seed) if faults else None)
        finally:
            self._write("summary", self.seen.summary())

    def _run(self, count: int, names: Sequence[str], choice: random.Random | None) -> None:
        number = 0
        while number < count:
            for to in ("new", "old"):
                self._hand(number, names, to)
                number += len(names)
            if choice and number % FAULT_EVERY < 2 * len(names):
                self._fault(choice)
            if number % MEMORY_EVERY < 2 * len(names):
                self._weigh(number)
            if len(self.seen.failed) >= MOST_ERRORS:
                raise WaitTimeoutError(
                    f"{MOST_ERRORS} handoffs failed, the last: {self.seen.failed[-1].problem}"
                )

    def _hand(self, before: int, names: Sequence[str], to: str) -> None:
        """All VMs by one command."""
        ground, arrived, failure = self._ground, list[HandoffResult](), ""
        began = time.monotonic_ns()
        try:
            ground.hand_all(to, names, arrived.append)
        except MultirootError as error:
            failure = str(error)
        total = time.monotonic_ns() - began
        for number, result in enumerate(arrived, before + 1):
            self._look(number, result, to, total)
        stay = [name for name in names if name not in [result.name for result in arrived]]
        if stay:
            self._note(self.seen.failed, Failed(before + len(names), ", ".join(stay), failure))
            ground.ready(joined=True)
        self._progress(self.seen)

    def _look(self, number: int, result: HandoffResult, to: str, total: int) -> None:
        """Whether the guest is well after one handoff."""
        giver = OTHER[to]
        try:
            before = self._ground.stretch(giver, name=result.name)
            after = self._ground.stretch(to, SOME_TICKS, result.name)
        except MultirootError as error:
            self._note(self.seen.failed, Failed(number, result.name, str(error)))
            return
        problems = check.guest_problems([before, after])
        if problems:
            self._note(self.seen.failed, Failed(number, result.name, "; ".join(problems)))
        gap = gap_around(before.then(after).ticks, result.stopped_ns, result.resumed_ns)
        blackout = result.resumed_ns - result.stopped_ns
        self._note(self.seen.handed, Handed(number, result.name, to, blackout, gap, total))

    def _weigh(self, number: int) -> None:
        """How much memory the agents have."""
        for root in ROOTS:
            kib = int(self._ground.shell(_AGENT_MEMORY, root).split()[1])
            self._note(self.seen.memory, Memory(number, root, kib * 1024))

    def _fault(self, choice: random.Random) -> None:
        outcomes = Runner(self._ground, lambda _: None).run([choice.choice(harmless())])
        for outcome in outcomes:
            self._note(self.seen.faults, outcome)
        self._ground.ready(joined=True)

    def _note(self, kept: list[Any], item: Any) -> None:
        kept.append(item)
        self._write(type(item).__name__.lower(), asdict(item))

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        if self._file:
            with self._file.open("a") as file:
                file.write(json.dumps({"kind": kind, **data}) + "\n")


def busy_vms(count: int, machines: Sequence[str]) -> list[vm_pb2.VmDefinition]:
    """VMs whose guests are at work, with QEMU machines of these names in turn."""
    found = definitions(count, VM_MEMORY, LOAD)
    for definition, machine in zip(found, cycle(machines), strict=False):
        definition.machine = machine
    return found


def harmless() -> list[Fault]:
    """Faults that no guest's life ends with: those by order alone."""
    return [fault for fault in handoffs.all_faults() if fault.orders and not (fault.strike or fault.ends)]
