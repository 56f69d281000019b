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
    """The console keeper has ended, as it does when the VM's VMM ends."""


@dataclass
class ConsoleStream:
    """An open console; live bytes begin at offset `start`, and were read up to offset `end`."""

    folder: VmFolder
    start: int
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    end: int

    def history(self, since: int = 0) -> bytes:
        """What is kept of the output from offset `since` on and before `start`."""
        return recorded(self.folder, since, self.start)

    async def read(self) -> bytes:
        """Live bytes, empty when the VMM has ended or we were too slow for the keeper."""
        try:
            data = await self._reader.read(_CHUNK)
        except ConnectionResetError:
            return b""
        self.end += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Send to the guest."""
        self._writer.write(data)
        await self._writer.drain()


def recorded(folder: VmFolder, since: int, until: int | None = None) -> bytes:
    """What is kept of the output from offset `since` on, in pieces that end at offset `until` or before."""
    pieces = read_history(folder.console_record)
    return b"".join(
        piece.data[max(0, since - piece.start) :]
        for piece in pieces
        if since < piece.end and (until is None or piece.end <= until)
    )


@asynccontextmanager
async def open_console(folder: VmFolder) -> AsyncIterator[ConsoleStream]:
    """Connect to the keeper for the time of the body; raises ConsoleClosedError if it has ended."""
    try:
        reader, writer = await asyncio.open_unix_connection(folder.console)
        start = START.unpack(await reader.readexactly(START.size))[0]
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ConsoleClosedError("the VM's console is closed", "its VMM has ended") from error
    try:
        yield ConsoleStream(folder, start, reader, writer, end=start)
    finally:
        writer.close()


class Follower:
    """Reads a VM's output to its end. Connects again when the keeper drops it because it was too slow."""

    def __init__(self, folder: VmFolder) -> None:
        self._folder = folder
        self._console: ConsoleStream | None = None
        self._open = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Send to the guest once the console is open, which it becomes when `output` is read."""
        while True:
            await self._open.wait()
            console = self._console
            assert console
            try:
                return await console.write(data)
            except ConnectionError:
                # Dropped; what is read opens it again, if it has not done so already.
                if console is self._console:
                    self._open.clear()

    async def output(self, *, history: bool) -> AsyncIterator[bytes]:
        """The output from now on, with `history` after what is kept of the output before; without gaps.

        Of a console that is closed already there is only what is kept.
        """
        since = 0 if history else None
        while True:
            try:
                async with open_console(self._folder) as self._console:
                    self._open.set()
                    if since is not None and (missed := self._console.history(since)):
                        yield missed
                    while data := await self._console.read():
                        yield data
                    self._open.clear()
                    since = self._console.end
            except ConsoleClosedError:
                # It may have dropped us before it ended, or ended before we came.
                if since is not None and (rest := recorded(self._folder, since)):
                    yield rest
                return


async def wait_for_ticks(vm: Instance, count: int) -> Stretch:
    """Wait for `count` ticks of the guest; returns all that are kept, on the machine-wide clock.

    Of a VM that does not run here any more these are all that it has said here. Raises ConflictError when the
    VM ends before.
    """

    def read() -> Stretch:
        return read_stretch(vm.folder.console_record, vm.host.clock)

    if not vm.active:
        await _closed(vm.folder)
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
            # The VMM has just ended; what became of the VM is told next.
            await vm.ended()
        stretch = await asyncio.to_thread(read)
    return stretch


async def _closed(folder: VmFolder) -> None:
    """Wait until the keeper has written down the last that the guest said, and has ended."""
    async for _ in Follower(folder).output(history=False):
        pass


async def _lines(console: ConsoleStream, count: int) -> None:
    """Wait until the guest has ended that many more lines, or has ended."""
    while count > 0 and (data := await console.read()):
        count -= data.count(b"\n")
