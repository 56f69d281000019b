# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that refuse what the guest wants of them, and a guest that stands still until they do it.

QEMU stops the guest at a request that has failed (werror=stop), keeps the request, and does it again when the
guest goes on. So a server that has come back before its disks have, as an iSCSI target does that is still
being told of them, costs a guest time and no more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from multiroot.vm.notices import Notice
from multiroot.vm.qemu.qmp import Qmp
from multiroot.vm.vmm import VmmSetup

STATUS = "io-error"  # of query-status
AGAIN_S = 1.0  # so often; nobody tells when a disk will do it


class Refusals:
    """Of the disks of one QEMU. `disks` are their names in the guest."""

    def __init__(self, qmp: Qmp, setup: VmmSetup) -> None:
        self.disks: tuple[str, ...] = ()
        self._qmp = qmp
        self._setup = setup
        self._count = 0

    def hear(self, data: Mapping[str, Any]) -> bool:
        """Of a BLOCK_IO_ERROR; whether it is only another try of what has failed before."""
        if data.get("action") != "stop":
            return False
        self._count += 1
        name = str(data.get("node-name"))
        again = name in self.disks
        if not again:
            self.disks = (*self.disks, name)
        return again

    async def try_again(self, may: Callable[[], bool]) -> None:
        """A while from now, if one `may` then: have the guest go on, and see whether it does. If not, it
        stops, and this is to be called once more.
        """
        await asyncio.sleep(AGAIN_S)
        if not may():
            return
        before = self._count
        if (await self._qmp.execute("query-status"))["status"] == STATUS:
            await self._qmp.execute("cont")
            await asyncio.sleep(AGAIN_S)
        if self._count == before and (await self._qmp.execute("query-status"))["running"]:
            done, self.disks = self.disks, ()
            now = self._setup.to_ns(time.time_ns())
            for name in done:
                self._setup.heard(Notice(now, f"{name} does what the guest wants again; the guest goes on"))
