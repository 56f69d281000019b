# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM of those who are not us. Kept light: it is imported while a VM stands still."""

from __future__ import annotations

from pathlib import Path

from multiroot.net.tap import TapDevice, open_tap
from multiroot.vm.instance import Instance
from multiroot.vm.qemu.command import Descriptors, Paths

ROOT = 200  # owner of our extents: a number that no root of a lab reaches
RUN_DIR = Path("/tmp/bench")
STATE = "bench-state"  # the extent that a device state waits in
STATE_SIZE = 4 << 20
RESULT = Path("/run/multiroot/bench.json")


class Rival(Instance):
    """A VM whose waiting QEMU goes on by itself when it has loaded a state, as everybody's does."""

    def _argv(self, paths: Paths, descriptors: Descriptors, incoming: bool) -> list[str]:
        return [word for word in super()._argv(paths, descriptors, incoming) if word != "-S"]


class UnpluggedTaps:
    """Taps that are ports of no bridge: as much of a network as a measurement needs."""

    async def add_tap(self, vm: str) -> TapDevice:
        return open_tap()

    async def bring_up(self, tap: str) -> None:
        """Nobody is at the other end."""
