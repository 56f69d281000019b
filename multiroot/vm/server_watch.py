# SPDX-License-Identifier: GPL-2.0-or-later
"""Which servers of a running VM's disks are away, and who is told when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from multiroot.processes import ProcessId
from multiroot.vm import disk_servers
from multiroot.vm.disk import Server


class ServerWatch:
    """Of one VM; without servers it does nothing."""

    def __init__(
        self, servers: Collection[Server], vmm: Callable[[], ProcessId | None], tell: Callable[[str], None]
    ) -> None:
        """`vmm` is the VM's process here, None when it has none; `tell` gets what has changed."""
        self._servers = servers
        self._vmm = vmm
        self._tell = tell
        self.away: tuple[str, ...] = ()
        self._watching: asyncio.Task[None] | None = None

    def begin(self, may: Callable[[], bool]) -> None:
        """Look from now on, when one `may`, until the VM has no process here any more."""
        if self._servers:
            self._watching = asyncio.create_task(self._watch(may))

    async def _watch(self, may: Callable[[], bool]) -> None:
        while self._vmm():
            if may():
                await self.look()
            await asyncio.sleep(disk_servers.LOOK_S)

    async def look(self) -> None:
        """Bring `away` up to date."""
        process = self._vmm()
        if not self._servers or process is None:
            return
        missing = await asyncio.to_thread(disk_servers.missing, process.pid, self._servers)
        if not self._vmm():
            return
        before, self.away = self.away, tuple(sorted(map(str, missing)))
        for disk in sorted({*self.away} - {*before}):
            self._tell(f"the server of the disk {disk} is gone: what the guest does with it waits")
        for disk in sorted({*before} - {*self.away}):
            self._tell(f"the server of the disk {disk} is back")
