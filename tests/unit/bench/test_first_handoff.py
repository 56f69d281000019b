# SPDX-License-Identifier: GPL-2.0-or-later
"""First handoffs into a new root, with tracepoints on and without."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from multiroot.bench.first_handoff import EACH, FreshRoot
from multiroot.bench.names import COLD, LATER, traced
from multiroot.bench.results.samples import Sample
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase
from multiroot.rpc.v1 import vm_pb2

PHASES = (Phase(PhaseName.RESUME, "root 2", 100, 20, blackout=True),)
MARK = Phase("KVM, exit hlt", "virtual CPU, root 2", 120, 5)


class Ours:
    """The VMs, which are handed over."""

    def wake(self) -> None:
        """They run."""

    def rest(self) -> None:
        """They do not."""

    def hand_over(self) -> list[Sample]:
        return [Sample(LATER, 0, {"blackout_ns": 20.0}, PHASES)]


class Tracer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start_in(self, root: str) -> None:
        self.told.append(root)

    def take(self) -> dict[str, str]:
        self.told.append("taken")
        return {}

    def marks(self, *_: object) -> list[Phase]:
        return [MARK]


class Root(FreshRoot):
    """One that is up at once."""

    kind = COLD

    def _first(self, joined: Callable[[], None] = lambda: None) -> list[Sample]:
        joined()
        return [Sample(self.kind, 0, {"blackout_ns": 20.0}, PHASES)]


def root(tracer: Tracer | None) -> Root:
    seen: Any = SimpleNamespace(
        ticks=lambda *_: SimpleNamespace(seen_ns=[]), release=lambda _: None, close=lambda: None
    )
    wanted: Any = tracer
    made = Root(seen, seen, [vm_pb2.VmDefinition(name="vm0")], "6.12", lambda _: None, wanted)
    ours: Any = Ours()
    made._ours = ours
    return made


def test_later_ones_follow_the_first() -> None:
    made = root(None)
    assert made.name == COLD
    assert [sample.contender for sample in made.sample()] == [COLD, *[LATER] * EACH]


def test_one_with_tracepoints_on_is_compared_with_none() -> None:
    tracer = Tracer()
    made = root(tracer)
    (sample,) = made.sample()
    assert (made.name, sample.contender) == (traced(COLD), traced(COLD))
    assert tracer.told == ["old", "new", "taken"]
    assert sample.values == {"traced_blackout_ns": 20.0}
    assert sample.phases == (*PHASES, MARK)
