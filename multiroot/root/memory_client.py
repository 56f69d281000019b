# SPDX-License-Identifier: GPL-2.0-or-later
"""Another root's memory, asked of the agent that has started it; and a copy of it, as a core file."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiroot.errors import BadRequestError, ConflictError, MultirootError, PeerLostError
from multiroot.ranges import Range, align_up
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import common_pb2, memory_pb2
from multiroot.units import MIB, PAGE
from multiroot.vmcore import core_file, info, traces
from multiroot.vmcore.core_file import CoreFile, Note
from multiroot.vmcore.free_pages import FreePages
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.space import UnmappedError
from multiroot.vmcore.target import Tables, elf_machine, tables

_ANSWER_S = 120.0  # the agent looks through all of the memory first
_READ_S = 30.0
_BATCH = 64 * MIB  # asked for in one call
_RANGES_MOST = 512
_FRESH_S = 0.5  # what was read of a root that lives is true for so long
_PAGES_MOST = 4096

log = logging.getLogger(__name__)

# The number of bytes that were asked for and answered so far, of how many.
Tell = Callable[[int, int], None]


@dataclass
class RootMemory:
    """The memory of one root. `stub` is a MemoryServiceStub. Raises MultirootError."""

    stub: Any
    root: int
    state: str
    ranges: tuple[Range, ...]
    info: VmcoreInfo | None
    parked: dict[int, int]  # where the stacks end of CPUs that it has parked
    _pages: dict[int, tuple[float, bytes]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, stub: Any, name: str) -> RootMemory:
        """Ask for the root called `name`."""
        with translated("the agent"):
            told = stub.Describe(memory_pb2.DescribeMemoryRequest(root=name), timeout=_ANSWER_S)
        try:
            ranges = tuple(Range(each.start, each.size) for each in told.memory)
        except ValueError as error:
            raise MultirootError(f"the agent tells of memory that there can't be: {error}") from error
        parked = {each.cpu: each.stack for each in told.parked}
        return cls(stub, told.root, told.state, ranges, info.parse(told.vmcoreinfo), parked)

    @property
    def alive(self) -> bool:
        """Whether it may change what is read."""
        return self.state != "parked"

    def tables(self) -> Tables:
        """Its kernel's page tables. Raises UnmappedError where it does not say where they are."""
        if self.info is None:
            raise UnmappedError("there is no VMCOREINFO in its memory")
        return tables(self.read, self.info)

    def read(self, phys: int, size: int) -> bytes:
        """Some bytes, which are not older than a moment. Raises UnmappedError where there is no memory."""
        first, end = phys - phys % PAGE, align_up(phys + size, PAGE)
        if not any(each.base <= first and end <= each.end for each in self.ranges):
            raise UnmappedError(f"the root has no memory at {phys:#x}")
        whole = bytearray(end - first)
        stale = []
        now = time.monotonic()
        for page in range(first, end, PAGE):
            read_at, data = self._pages.get(page, (0.0, b""))
            if data and (not self.alive or now - read_at < _FRESH_S):
                whole[page - first : page - first + PAGE] = data
            else:
                stale.append(page)
        if stale:
            # In one call, for each takes a while to go to the agent and back.
            for start, found in self.pieces(_runs(stale)):
                whole[start - first : start - first + len(found)] = found
            self._keep(stale, first, whole)
        return bytes(whole[phys - first : phys - first + size])

    def _keep(self, pages: list[int], first: int, whole: bytearray) -> None:
        if len(self._pages) + len(pages) > _PAGES_MOST:
            self._pages.clear()
        now = time.monotonic()
        for page in pages[:_PAGES_MOST]:
            self._pages[page] = (now, bytes(whole[page - first : page - first + PAGE]))

    def pieces(self, ranges: Iterable[Range]) -> Iterator[tuple[int, bytes]]:
        """What is not zero in there, with its address."""
        wanted = list(ranges)
        request = memory_pb2.ReadMemoryRequest(
            root=self.root,
            ranges=[common_pb2.MemoryRange(start=each.base, size=each.size) for each in wanted],
        )
        timeout = _READ_S + sum(each.size for each in wanted) / MIB
        with translated("the agent"):
            for piece in self.stub.Read(request, timeout=timeout):
                end = piece.start + len(piece.data)
                if not any(each.base <= piece.start and end <= each.end for each in wanted):
                    raise MultirootError("the agent sends memory that nobody has asked for", "see its log")
                yield piece.start, piece.data


@dataclass(frozen=True)
class Dump:
    """What a dump will have, or has. Sizes in bytes; `free` and `written` are -1 as long as they are not
    known.
    """

    root: int
    state: str
    release: str
    core: CoreFile
    wanted: tuple[Range, ...]
    free: int

    @property
    def memory(self) -> int:
        """All of the root's memory."""
        return sum(each.size for each in self.core.ranges)


def plan(memory: RootMemory, *, without_free: bool) -> Dump:
    """What is to be written. Raises MultirootError where free pages are to be left out and cannot be told."""
    known = memory.info
    linear = core_file.NO_ADDRESS
    wanted, free = memory.ranges, -1
    try:
        space = memory.tables()
        linear = space.linear
        if without_free and known:
            pages = FreePages(space, known)
            wanted = tuple(part for each in memory.ranges for part in pages.used(each))
            free = sum(each.size for each in memory.ranges) - sum(each.size for each in wanted)
    except UnmappedError as error:
        if without_free:
            raise MultirootError(
                f"cannot tell which pages of root {memory.root} are free: {error}",
                "say --with-free: they are in the dump then",
            ) from error
    notes = (*registers(memory), core_file.vmcoreinfo_note(known.text)) if known else ()
    core = CoreFile(elf_machine(), memory.ranges, notes, linear)
    return Dump(memory.root, memory.state, known.release if known else "", core, wanted, free)


def registers(memory: RootMemory) -> list[Note]:
    """Notes of the CPUs that the root has parked; none where they can't be told: a dump is good without."""
    if memory.info is None or not memory.parked:
        return []
    try:
        found = traces.of_all(memory.tables(), memory.info, memory.parked)
    except UnmappedError as error:
        log.info("no registers are in the dump: %s", error)
        return []
    return traces.registers(found)


def _runs(pages: list[int]) -> list[Range]:
    """Pages in order, joined where they touch."""
    runs: list[Range] = []
    for page in pages:
        if runs and runs[-1].end == page:
            runs[-1] = Range(runs[-1].base, runs[-1].size + PAGE)
        else:
            runs.append(Range(page, PAGE))
    return runs


def check_target(path: Path) -> None:
    """Raises ConflictError, BadRequestError: a dump writes over nothing."""
    if path.is_dir():
        raise BadRequestError(
            f"{path} is a folder", f"name a file: `--output {shlex.quote(str(path / 'vmcore'))}`"
        )
    if path.exists():
        raise ConflictError(f"{path} is there already", f"remove it: `rm {shlex.quote(str(path))}`")
    if not path.absolute().parent.is_dir():
        folder = path.absolute().parent
        raise BadRequestError(
            f"there is no folder {folder}", f"make it: `mkdir -p {shlex.quote(str(folder))}`"
        )


def write(memory: RootMemory, dump: Dump, path: Path, tell: Tell) -> int:
    """Write the core file; returns how many bytes of memory are in it. All of it is there, or nothing."""
    check_target(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)  # a kernel's memory holds keys
            written = _fill(memory, dump, file, tell)
            os.fsync(file.fileno())
        partial.rename(path)
    except FileExistsError as error:
        raise ConflictError(
            f"{partial} is there already: another dump is being written, or was cut short",
            f"if none is: `rm {shlex.quote(str(partial))}`",
        ) from error
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            most = sum(each.size for each in dump.wanted) // MIB
            where = shlex.quote(str(path.absolute().parent))
            raise MultirootError(
                f"no space is left for {path}", f"it takes up to {most} MiB: `df -h {where}`"
            ) from error
        raise MultirootError(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return written


def _fill(memory: RootMemory, dump: Dump, file: Any, tell: Tell) -> int:
    file.write(dump.core.header())
    written = done = 0
    total = sum(each.size for each in dump.wanted)
    for batch in _batches(dump.wanted):
        for start, data in memory.pieces(batch):
            file.seek(dump.core.offset_of(start, len(data)))
            file.write(data)
            written += len(data)
        done += sum(each.size for each in batch)
        tell(done, total)
    file.truncate(dump.core.size)
    return written


def _batches(ranges: Iterable[Range]) -> Iterator[list[Range]]:
    """The same in portions that one call can ask for."""
    batch: list[Range] = []
    size = 0
    for each in ranges:
        for start in range(each.base, each.end, _BATCH):
            part = Range.between(start, min(start + _BATCH, each.end))
            if batch and (size + part.size > _BATCH or len(batch) >= _RANGES_MOST):
                yield batch
                batch, size = [], 0
            batch.append(part)
            size += part.size
    if batch:
        yield batch


def need_info(memory: RootMemory) -> VmcoreInfo:
    """Raises PeerLostError when its kernel has not come so far as to tell of itself."""
    if memory.info is None:
        raise PeerLostError(
            f"there is no VMCOREINFO in the memory of root {memory.root}",
            "its kernel did not come so far, or was built without CRASH_CORE (VMCORE_INFO since 6.9)",
        )
    return memory.info
