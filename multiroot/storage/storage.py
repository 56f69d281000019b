# SPDX-License-Identifier: GPL-2.0-or-later
"""What this root's VMMs reach of files on the machine's disks, and what this root serves to others of them.

A VMM connects to a door in its own root, wherever the file is, and speaks NBD there. The door leads to the
daemon of this root, if it has the file's disk, or to the other root that has. While nobody has it, as between
the end of one root and the next one's mount, the door keeps the VMM waiting: its guest's requests wait, and
none fails.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.storage import filesystems
from multiroot.storage.daemon import Daemon, running
from multiroot.storage.filesystems import Filesystem
from multiroot.storage.relay import Wire, join
from multiroot.vm import disk
from multiroot.vm.disk import LocalFile

log = logging.getLogger("multirootd")

# While nobody has a file, so often, at first and later; who mounts a disk by hand tells nobody. Each look
# asks the other root, too, which has enough to do while it ends.
LOOK_S, MOST_S = 0.1, 1.0
OPEN_S = 10.0  # another root's agent may take so long to answer, and to come for what it asked for
KEY_SIZE = 32
_Result = TypeVar("_Result")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of unix(7), SO_PEERCRED


@dataclass(frozen=True)
class Endpoint:
    """Where a root waits once for another that has asked for a file, and what that one says first."""

    host: str
    port: int
    key: bytes


@dataclass(frozen=True)
class Surroundings:
    """What storage works with.

    `address` is this root's own on the roots' network. `others` asks the roots beside this one for a file,
    and gives None if none has it. `may_use` says whether a VM of this root may use a file now, by its owner
    word. Both are called in a thread of storage's own.
    """

    address: str
    others: Callable[[str], Future[Endpoint | None]]
    may_use: Callable[[str], bool]


class Storage:
    """All doors of this root. Its methods may be called in any thread but its own."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._left = self._settled = self._closed = False
        self._doors: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._elsewhere: WeakSet[Wire] = WeakSet()  # to other roots
        self._changed = asyncio.Event()
        self._users: Counter[str] = Counter()  # who is led to a file's daemon, by its path
        self._daemons = asyncio.Lock()  # none is started amid a look at all of them
        # A loop of its own: what guests read and write is not to make handoffs wait.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="disks", daemon=True)
        self._thread.start()

    def open_door(self, file: LocalFile) -> None:
        """From now on a VMM of this root may connect at the file's door. Twice is fine."""
        self._do(self._open_door(file)).result(OPEN_S)

    def serve(self, path: str) -> Endpoint:
        """For another root, which comes once and says the key. Raises BadRequestError if the file is not on
        a disk that this root has; ConflictError if it can't be served.
        """
        return self._do(self._serve(path)).result(OPEN_S + OPEN_S)

    def settle(self) -> list[int]:
        """Start and end no daemon any more; those that run serve on. Returns their processes. Raises
        ConflictError if one serves another file than the one at its path, which would be the VM's later.
        """
        return self._do(self._settle()).result()

    def stop(self, kept: Iterable[Filesystem] = ()) -> tuple[Filesystem, ...]:
        """Serve nothing any more, and end the daemons. Returns the filesystems that the files are on, all
        others of the machine's disks, and those that an earlier call has `kept`. Raises ConflictError if a
        daemon does not end.
        """
        return self._do(self._stop(kept)).result()

    def come(self, left: Sequence[Filesystem]) -> None:
        """Mount these filesystems, and serve the files there. Raises MultirootError if a disk is not there;
        the others are served then.
        """
        self._do(self._come(left)).result()

    def part_from(self, address: str) -> None:
        """The root that has this address has ended, and hangs up no more: do so for it."""
        self._do(self._part_from(address)).result(OPEN_S)

    def close(self) -> None:
        """Shut all doors. What is served outlives this agent."""
        self._do(self._close()).result(OPEN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open_door(self, file: LocalFile) -> None:
        door = file.door
        if file.path in self._doors:
            return
        door.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        door.unlink(missing_ok=True)

        def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._begin(self._attend(file, Wire(reader, writer)))

        self._doors[file.path] = await asyncio.start_unix_server(called, door)
        door.chmod(0o600)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, file: LocalFile, vmm: Wire) -> None:
        """Lead a VMM that has come to the file's door to who has the file, and wait with it for that one.

        However that ends, the VMM is hung up: it comes again, and would wait for ever otherwise.
        """
        try:
            await self._lead(file, vmm)
        finally:
            await vmm.close()

    async def _lead(self, file: LocalFile, vmm: Wire) -> None:
        ours = _pid(vmm) == os.getpid()

        def may() -> bool:
            return ours or self._around.may_use(file.path)

        if not may():
            log.warning("%s: who has come to its door has no VM here that may use it", file)
            return
        # Who speaks NBD waits for the server's first word. So this ends only if the VMM does.
        gone = asyncio.create_task(vmm.reader.read(1))
        finding = asyncio.create_task(self._find(file, once=ours))
        try:
            await asyncio.wait({gone, finding}, return_when=asyncio.FIRST_COMPLETED)
            left = gone.done()
        finally:
            gone.cancel()
            finding.cancel()
            await asyncio.gather(gone, finding, return_exceptions=True)
        if finding.cancelled() or (server := finding.result()) is None:
            return
        if left:
            await server.close()
            return
        await join(vmm, server, may)

    async def _find(self, file: LocalFile, *, once: bool) -> Wire | None:
        """Who has the file; waits for one who has it, but `once`. The mark says why nobody has it."""
        mark, pause = file.away, LOOK_S
        while True:
            self._changed.clear()
            try:
                wire = await self._unless_changed(self._try(file.path))
                why = "it is on no disk that a root has mounted"
            except (MultirootError, OSError, TimeoutError) as error:
                wire, why = None, getattr(error, "message", "") or str(error) or "there was no answer in time"
            if wire:
                mark.unlink(missing_ok=True)
                return wire
            if not mark.exists():
                log.warning("nobody serves %s: %s", file, why)
            mark.write_text(why)
            if once:
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            pause = min(2 * pause, MOST_S)

    async def _unless_changed(self, trying: Coroutine[Any, Any, Wire | None]) -> Wire | None:
        """What comes of it; None if what this root has changes meanwhile: a root that has just ended would
        be waited for in vain.
        """
        # Not racing.unless(): a question that is given up elsewhere is an answer, too, and not our end.
        task, changed = asyncio.ensure_future(trying), asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            if not task.done():
                task.cancel()
            await asyncio.gather(task, changed, return_exceptions=True)
        return None if task.cancelled() else task.result()

    async def _try(self, path: str) -> Wire | None:
        if not self._left and await asyncio.to_thread(filesystems.is_here, path):
            return await self._own(path)
        endpoint = await asyncio.wrap_future(self._around.others(path))
        if endpoint is None:
            return None
        async with asyncio.timeout(OPEN_S):
            wire = Wire(*await asyncio.open_connection(endpoint.host, endpoint.port))
            self._elsewhere.add(wire)
            wire.writer.write(endpoint.key)
            return wire

    async def _own(self, path: str) -> Wire:
        daemon = self._daemon(path)
        async with self._daemons:
            if self._left or (self._settled and not daemon.pid):
                raise ConflictError(f"this root is leaving the disk that {path} is on")
            if not daemon.pid:
                # What another root would not find is not begun.
                await asyncio.to_thread(filesystems.of, daemon.path)
            await asyncio.to_thread(daemon.ensure)
            ends = await asyncio.open_unix_connection(daemon.socket)
            self._users[daemon.path] += 1
        return Wire(*ends, lambda: self._begin(self._unused(daemon)))

    async def _unused(self, daemon: Daemon) -> None:
        """One user less. What nobody uses is served no more: the file may be replaced, its disk unmounted."""
        self._users[daemon.path] -= 1
        async with self._daemons:
            if self._users[daemon.path] or self._settled or self._left or self._closed:
                return
            try:
                await asyncio.to_thread(daemon.end)
            except ConflictError as error:
                log.warning("%s", error)

    @staticmethod
    def _daemon(path: str) -> Daemon:
        return Daemon(os.path.realpath(path), disk.DOORS)  # two names of one file have one daemon

    async def _serve(self, path: str) -> Endpoint:
        if self._left or not await asyncio.to_thread(filesystems.is_here, path):
            raise BadRequestError(f"{path} is not on a disk that this root has")
        server = await self._own(path)
        key = secrets.token_bytes(KEY_SIZE)
        listener = socket.create_server((self._around.address, 0))
        self._begin(self._wait_for(listener, key, server))
        return Endpoint(self._around.address, listener.getsockname()[1], key)

    async def _wait_for(self, listener: socket.socket, key: bytes, server: Wire) -> None:
        """The other root's door comes, and is led to our daemon."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        try:
            async with asyncio.timeout(OPEN_S):
                sock, _ = await loop.sock_accept(listener)
                door = Wire(*await asyncio.open_connection(sock=sock))
                said = await door.reader.readexactly(len(key))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            await server.close()
            return
        finally:
            listener.close()
        if not hmac.compare_digest(said, key):
            await door.close()
            await server.close()
            return
        await join(door, server, lambda: not self._left)

    async def _settle(self) -> list[int]:
        async with self._daemons:
            found = await asyncio.to_thread(running, disk.DOORS)
            for daemon in found:
                daemon.check_file()
            self._settled = True
            return [daemon.pid for daemon in found]

    async def _stop(self, kept: Iterable[Filesystem]) -> tuple[Filesystem, ...]:
        self._left = True
        found = {each.point: each for each in kept}
        found |= {each.point: each for each in await asyncio.to_thread(filesystems.of_machine)}
        async with self._daemons:
            for daemon in await asyncio.to_thread(running, disk.DOORS):
                filesystem = await asyncio.to_thread(filesystems.of, daemon.path)
                found[filesystem.point] = filesystem
                await asyncio.to_thread(daemon.end)
        return tuple(found.values())

    async def _come(self, left: Sequence[Filesystem]) -> None:
        problems = []
        for filesystem in sorted(left, key=lambda each: each.point):
            try:
                await asyncio.to_thread(filesystems.come, filesystem)
            except MultirootError as error:
                problems.append(error)
        self._left = self._settled = False
        self._changed.set()
        if problems:
            raise problems[0]

    async def _part_from(self, address: str) -> None:
        for wire in tuple(self._elsewhere):
            if wire.peer == address:
                await wire.close()

    async def _close(self) -> None:
        self._closed = True
        for door in self._doors.values():
            door.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _pid(wire: Wire) -> int:
    sock = wire.writer.get_extra_info("socket")
    told: bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(told)[0])
