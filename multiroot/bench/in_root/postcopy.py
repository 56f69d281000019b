# SPDX-License-Identifier: GPL-2.0-or-later
"""Postcopy (QEMU's docs/devel/migration/postcopy.rst): the guest goes on at once, and its RAM follows it."""

from __future__ import annotations

from dataclasses import replace

from multiroot.arena.allocator import Extent
from multiroot.bench.in_root.baseline_vm import BaselineVm, OrdinaryQemu
from multiroot.vm.qemu.command import Qemu
from multiroot.vm.vmm import VmmSetup, Wiring

NAME = "postcopy"
CAPABILITY = "postcopy-ram"


class PostcopyQemu(OrdinaryQemu):
    """Its RAM is ordinary shared memory: userfaultfd(2) does not know device-DAX."""

    def __init__(self, qemu: Qemu, setup: VmmSetup) -> None:
        self._ram = setup.folder / "ram"
        extent = Extent(0, setup.extent.size)
        super().__init__(qemu, replace(setup, arena=self._ram, extent=extent, populate=False))

    async def start(self, wiring: Wiring, *, incoming: bool = False) -> None:
        with self._ram.open("wb") as file:
            file.truncate(self.setup.extent.size)
        try:
            await super().start(wiring, incoming=incoming)
        finally:
            # It lives as long as QEMU does.
            self._ram.unlink()


class PostcopyVm(BaselineVm):
    """A VM with such a QEMU."""

    kind = PostcopyQemu
