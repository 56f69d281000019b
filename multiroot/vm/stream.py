# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's console as the agent sees it: history from the keeper's file, then live bytes from its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from multiroot.errors import ConflictError
from multiroot.vm.console import START
from multiroot.vm.folder import VmFolder
from multiroot.vm.history import read_history, read_stretch
from multiroot.vm.instance import Instance
from multiroot.vm.ticks import Stretch

_CHUNK = 1 << 16


class ConsoleClosedError(ConflictError):
    """The console keeper has ended, and with it the VM's QEMU."""


@dataclass
class ConsoleStream:
    """An open console; live bytes begin at offset `start`."""

    folder: VmFolder
    start: int
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def history(self) -> bytes:
        """What is kept of the output before `start`."""
        pieces = read_history(self.folder.console_record)
        return b"".join(piece.data for piece in pieces if piece.end <= self.start)

    async def read(self) -> bytes:
        """Live bytes, empty when the VM's QEMU has ended or we were too slow for the keeper."""
        try:
            return await self._reader.read(_CHUNK)
        except ConnectionResetError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send to the guest."""
        self._writer.write(data)
        await self._writer.drain()


@asynccontextmanager
async def open_console(folder: VmFolder) -> AsyncIterator[ConsoleStream]:
    """Connect to the keeper for the time of the body; raises ConsoleClosedError if it has ended."""
    try:
        reader, writer = await asyncio.open_unix_connection(folder.console)
        start = START.unpack(await reader.readexactly(START.size))[0]
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ConsoleClosedError("the VM's console is closed", "its QEMU has ended") from error
    try:
        yield ConsoleStream(folder, start, reader, writer)
    finally:
        writer.close()


async def wait_for_ticks(vm: Instance, count: int) -> Stretch:
    """The guest's ticks on the machine-wide clock: all that is kept, once there are `count` of them.

    Raises ConflictError when the VM ends before.
    """

    def read() -> Stretch:
        return read_stretch(vm.folder.console_record, vm.host.clock)

    # A long history takes a while to parse.
    stretch = await asyncio.to_thread(read)
    while len(stretch.ticks) < count:
        if not vm.active:
            raise ConflictError(f"{vm.name} is {vm.state} and ticks no more", vm.error)
        try:
            async with open_console(vm.folder) as console:
                # Again, for what came before we were connected.
                stretch = await asyncio.to_thread(read)
                await _lines(console, count - len(stretch.ticks))
        except ConsoleClosedError:
            # QEMU has just ended; what became of the VM is told next.
            await vm.ended()
        stretch = await asyncio.to_thread(read)
    return stretch


async def _lines(console: ConsoleStream, count: int) -> None:
    """Wait until the guest has ended that many more lines, or has ended."""
    while count > 0 and (data := await console.read()):
        count -= data.count(b"\n")
