# SPDX-License-Identifier: GPL-2.0-or-later
"""Passes bytes on between a VMM and who serves its disk, as long as both are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

SIZE = 256 << 10  # bytes at once; QEMU's requests have up to 32 MiB


class Wire:
    """One end: what is read from it and written to it. `hung_up` is called once, when it is closed."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hung_up: Callable[[], object] = lambda: None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._hung_up: Callable[[], object] | None = hung_up

    @property
    def peer(self) -> str:
        """The address at the other end of a TCP connection."""
        host: str = self.writer.get_extra_info("peername")[0]
        return host

    async def close(self) -> None:
        """Hang up, whatever is not sent yet."""
        self.writer.transport.abort()
        if hung_up := self._hung_up:
            self._hung_up = None
            hung_up()
        with suppress(OSError):
            await self.writer.wait_closed()


async def join(vmm: Wire, server: Wire, may: Callable[[], bool]) -> None:
    """Pass on what each says until one hangs up; then the other is hung up, too.

    `may` is asked before anything of the VMM's is passed on: one that has lost its VM to another root is hung
    up, and writes nothing any more.
    """
    ways = [
        asyncio.create_task(_pass_on(vmm, server, may)),
        asyncio.create_task(_pass_on(server, vmm, lambda: True)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await vmm.close()
        await server.close()


async def _pass_on(source: Wire, target: Wire, may: Callable[[], bool]) -> None:
    with suppress(OSError):
        while data := await source.reader.read(SIZE):
            if not may():
                return
            target.writer.write(data)
            await target.writer.drain()
