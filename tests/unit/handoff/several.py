# SPDX-License-Identifier: GPL-2.0-or-later
"""Two roots, several VMs in one of them."""

from __future__ import annotations

import time
from pathlib import Path

from multiroot.handoff.evacuation import Evacuation
from multiroot.handoff.terms import PATIENT, Terms
from multiroot.phases import Phases
from multiroot.vm.instance import VmState

from .harness import Root, make_root, target
from .memory_vmm import MemoryVmm, MemoryVmms

NAMES = ["a", "b", "c"]


class Two:
    """A giver with three VMs, and a taker; their VMMs have no process."""

    def __init__(self, ground: Path) -> None:
        self.giver, self.taker = (make_root(number, ground, MemoryVmms()) for number in (1, 2))
        self.phases = Phases("root 1", time.monotonic_ns)
        self.told: list[str] = []

    def evacuation(self, terms: Terms = PATIENT, names: list[str] = NAMES) -> Evacuation:
        return Evacuation(
            self.giver.manager,
            names,
            target(self.taker),
            self.phases,
            terms,
            lambda outcome: self.told.append(outcome.name),
        )

    def running(self, root: Root) -> list[str]:
        return [vm.name for vm in root.manager.all() if vm.state is VmState.RUNNING]

    def of(self, root: Root, name: str) -> MemoryVmm:
        vmm = root.manager.get(name).vmm
        assert isinstance(vmm, MemoryVmm)
        return vmm
