# SPDX-License-Identifier: GPL-2.0-or-later
"""Many handoffs in a row, to and fro, with guests at work: nothing may be lost, and nothing may grow."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression, quantiles
from typing import Any

from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.faults import check, handoffs
from multiroot.faults.fault import Fault, Outcome
from multiroot.faults.ground import ROOTS, Ground, definitions
from multiroot.faults.runner import Runner
from multiroot.rpc.v1 import vm_pb2
from multiroot.rpc.v1.coordinator_pb2 import HandoffResult
from multiroot.units import MIB
from multiroot.vm.ticks import gap_around

# Of each guest: what it writes beside what it checks, MiB/s. It needs more memory for that, bytes. It ticks
# slower than usual: two guests under two layers of emulation share the old root's CPUs.
LOAD = "ticker.dirty=8 ticker.period=20"
VM_MEMORY = 256 * MIB
MEMORY_EVERY = 10  # handoffs
FAULT_EVERY = 25
SOME_TICKS = 5
MOST_ERRORS = 10  # then it is no use to go on
WARM_UP = 0.2  # of the samples: an agent imports and fills its caches at first
GROWTH_BOUND = 0.05  # of an agent's memory, over the whole run
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
        """Counts, quantiles in ms, and how each agent's memory grew (a part of it, over the whole run)."""
        return {
            "handoffs": len(self.handed),
            "errors": len(self.failed),
            "faults": len(self.faults),
            "faults_held": sum(outcome.held for outcome in self.faults),
            "blackout_ms": spread([each.blackout_ns / 1e6 for each in self.handed if each.blackout_ns]),
            "gap_ms": spread([each.gap_ns / 1e6 for each in self.handed]),
            "total_ms": spread([each.total_ns / 1e6 for each in self.handed]),
            "memory": {root: growth([each for each in self.memory if each.root == root]) for root in ROOTS},
        }

    @property
    def held(self) -> bool:
        """No error, every fault held, no agent's memory grew."""
        grown = [each["growth"] for each in self.summary()["memory"].values()]
        return (
            bool(self.handed)
            and not self.failed
            and all(outcome.held for outcome in self.faults)
            and all(each <= GROWTH_BOUND for each in grown)
        )


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest; all 0 without values."""
    if not values:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {name: round(cuts[at - 1], 3) for name, at in (("p50", 50), ("p95", 95), ("p99", 99))} | {
        "max": round(max(values), 3)
    }


def growth(samples: Sequence[Memory]) -> dict[str, float]:
    """First and last, bytes, and by which part the regression line rises, without the warm-up."""
    if not samples:
        return {"first": 0, "last": 0, "growth": 0.0}
    kept = samples[int(len(samples) * WARM_UP) :]
    grown = 0.0
    if len(kept) > 2:
        line = linear_regression([each.number for each in kept], [each.bytes for each in kept])
        start = line.intercept + line.slope * kept[0].number
        grown = round(line.slope * (kept[-1].number - kept[0].number) / start, 4)
    return {"first": samples[0].bytes, "last": samples[-1].bytes, "growth": grown}


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
        began = datetime.now(UTC).isoformat(timespec="seconds")
        self._write("header", {"began": began, "vms": names, "seed": seed, **ground.versions()})
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
        giver = "old" if to == "new" else "new"
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


def busy_vms(count: int) -> list[vm_pb2.VmDefinition]:
    """VMs whose guests are at work."""
    return definitions(count, VM_MEMORY, LOAD)


def harmless() -> list[Fault]:
    """Faults that no guest's life ends with: those by order alone."""
    return [fault for fault in handoffs.all_faults() if fault.orders and not (fault.strike or fault.ends)]
