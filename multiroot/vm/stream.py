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
from multiroot.vm.history import read_history

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
