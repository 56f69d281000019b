# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM of those who are not us. Kept light: it is imported while a VM stands still."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from multiroot.arena.arena import Entry
from multiroot.net.tap import TapDevice, open_tap
from multiroot.vm.definition import VmDefinition
from multiroot.vm.host import Arrival, Host, LateFrames
from multiroot.vm.instance import Instance
from multiroot.vm.qemu.command import Incoming
from multiroot.vm.qemu.vmm import QemuFactory, QemuVmm

ROOT = 200  # owner of our extents: a number that no root of a lab reaches
RUN_DIR = Path("/tmp/bench")
STATE = "bench-state"  # the extent that a device state waits in
STATE_SIZE = 4 << 20
RESULT = Path("/run/multiroot/bench.json")


class OrdinaryQemu(QemuVmm):
    """When it has loaded a device state the guest goes on by itself, as without -S it always does."""

    incoming = Incoming(stopped=False)
    alone = False


class BaselineVm(Instance):
    """A VM of which the QEMU is driven directly."""

    kind: type[QemuVmm] = OrdinaryQemu

    def __init__(self, host: Host, definition: VmDefinition, entry: Entry) -> None:
        super().__init__(replace(host, vmm=QemuFactory(kind=self.kind)), definition, entry)
        assert isinstance(self.vmm, QemuVmm)
        self.qemu = self.vmm
        self.qmp = self.vmm.qmp


class UnpluggedTaps:
    """Taps that are ports of no bridge: as much of a network as a measurement needs."""

    async def add_tap(self, vm: str, queues: int = 1) -> TapDevice:
        return open_tap(queues=queues)

    async def bring_up(self, tap: str) -> None:
        """Nobody is at the other end."""

    def await_lease(self, tap: str, hear: Callable[[str, str], None]) -> None:
        """Nobody is at the other end."""

    def inside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def arriving(self, cards: Mapping[str, str]) -> Arrival:
        """Only an agent hands VMs over with their network."""
        raise NotImplementedError

    def late_frames(self, cards: Mapping[str, str], root: int, vmm: int) -> LateFrames:
        """Only an agent hands VMs over with their network."""
        raise NotImplementedError
