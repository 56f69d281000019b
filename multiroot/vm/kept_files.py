# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a user's VMs start with, such as a kernel. The arena keeps them, so every root has them.

Each is an extent of its own. It is named after the checksum of what is in it, as definitions name it, so none
is there twice. It goes with the last VM that is defined with it. What is found in one is not believed before
its checksum is right: another root can have written anything.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from types import TracebackType

from multiroot.arena.arena import Arena, Entry, Standing
from multiroot.arena.atomics import crc32c
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import ALIGN, RESERVED
from multiroot.errors import BadRequestError, ConflictError
from multiroot.ranges import align_up
from multiroot.units import GIB, format_size
from multiroot.vm.definition import VmDefinition

HASH = "sha256:"
MOST = GIB
PIECE = 1 << 16  # bytes that are sent at once
PREFIX = f"{RESERVED}file-"
MAGIC = b"MRVMFILE"

_NAME = re.compile(rf"{HASH}[0-9a-f]{{64}}")
_DIGITS = 48  # of the checksum, in an extent's name, which is short
# Magic, and length in bytes of what is at _DATA. Written when that is whole.
_HEADER = struct.Struct("<8sQ")
_DATA = 4096
# Whoever has sent a file is about to define a VM with it.
_SPARED_S = 600.0


def is_kept_name(text: str) -> bool:
    """Whether it names a file by its checksum, as the arena does."""
    return bool(_NAME.fullmatch(text))


def named(definition: VmDefinition) -> tuple[str, ...]:
    """The files that a VM starts with."""
    logins = (disk.login for disk in definition.disks)
    return tuple(filter(None, (definition.kernel, definition.initrd, *logins)))


def check_length(size: int) -> None:
    """Raises BadRequestError for a file that nobody keeps."""
    if not 0 < size <= MOST:
        what = f"has {format_size(size)}" if size > 0 else "is empty"
        raise BadRequestError(f"the file {what}", f"1 byte to {format_size(MOST)} are kept")


class KeptFiles:
    """The files in an arena. Another root may add or remove one at any time."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._sent: dict[str, float] = {}  # extents, and when this root began to receive them

    def has(self, name: str) -> bool:
        """Whether the arena has all of this file, by what its extent says."""
        entry = self._entry(name)
        return entry is not None and self._length(entry) is not None

    def read(self, name: str) -> bytes:
        """What is in it; raises BadRequestError if the arena has not got it, or it is damaged."""
        entry = self._entry(name) if is_kept_name(name) else None
        length = self._length(entry) if entry else None
        if entry is None or length is None:
            raise missing(name)
        with self._arena.mapped(entry.extent) as memory:
            content = memory[_DATA : _DATA + length]
        if f"{HASH}{hashlib.sha256(content).hexdigest()}" != name:
            raise BadRequestError(
                f"the arena's copy of {name} is damaged", "remove the VMs that have it, and give it anew"
            )
        return content

    def receive(self, name: str, size: int) -> Reception:
        """Make room for a file that is about to come; raises BadRequestError or ConflictError."""
        if not is_kept_name(name):
            raise BadRequestError(f"not the checksum of a file: {name!r}")
        check_length(size)
        extent = _extent_name(name)
        if entry := self._entry(name):
            self._replace(entry)
        try:
            entry = self._arena.allocate(extent, align_up(_DATA + size, ALIGN), crc32c(name.encode()))
        except ConflictError as error:
            raise ConflictError(f"cannot keep the file: {error.message}", error.hint) from error
        self._sent[extent] = time.monotonic()
        return Reception(self._arena, entry, name, size)

    def _replace(self, entry: Entry) -> None:
        """Remove what never came whole; raises ConflictError for what has, or is on its way."""
        other = self._arena.standing(entry.owner) is Standing.OTHER
        if other or self._spared(entry) or self._length(entry) is not None:
            raise ConflictError("the file is just being sent by somebody else", "try it again")
        self._free(entry)

    def settle(self, definition: VmDefinition) -> None:
        """Whoever sent the files of this VM has defined it by now, or never will."""
        for name in named(definition):
            self._sent.pop(_extent_name(name), None)

    def settle_all(self) -> None:
        """The same for all that were sent."""
        self._sent.clear()

    def check(self, definition: VmDefinition) -> None:
        """Raises BadRequestError unless all files of this VM are there, by what their extents say."""
        for name in named(definition):
            if not (is_kept_name(name) and self.has(name)):
                raise missing(name)

    def sweep(self, needed: Callable[[], Collection[str] | None]) -> None:
        """Remove the files that no VM is defined with. `needed` says which are needed, None if nobody can
        tell; it is asked again while no VM comes or goes.
        """
        for entry in self._entries():
            # What another root is just receiving is that one's.
            whole = self._length(entry) is not None
            if self._spared(entry) or (not whole and self._arena.standing(entry.owner) is Standing.OTHER):
                continue

            def check(name: str = entry.name) -> None:
                names = needed()
                if names is None or name in map(_extent_name, names):
                    raise ConflictError(f"{name} is needed")

            with suppress(ConflictError):
                check()
                self._free(entry, check)

    def _spared(self, entry: Entry) -> bool:
        return time.monotonic() - self._sent.get(entry.name, float("-inf")) < _SPARED_S

    def _free(self, entry: Entry, check: Callable[[], None] = lambda: None) -> None:
        _free(self._arena, entry, check)

    def _entry(self, name: str) -> Entry | None:
        wanted = _extent_name(name)
        return next((entry for entry in self._entries() if entry.name == wanted), None)

    def _entries(self) -> list[Entry]:
        # Not those that are just being freed.
        found = self._arena.entries()
        return [entry for entry in found if entry.name.startswith(PREFIX) and entry.owner.root]

    def _length(self, entry: Entry) -> int | None:
        """How many bytes it has; None for one that is not whole."""
        with self._arena.mapped(entry.extent) as memory:
            magic, length = _HEADER.unpack_from(memory)
        return int(length) if magic == MAGIC and 0 < length <= entry.extent.size - _DATA else None


class Reception:
    """A file that is coming, piece by piece; of one that does not come whole nothing is left."""

    def __init__(self, arena: Arena, entry: Entry, name: str, size: int) -> None:
        self._arena = arena
        self._entry = entry
        self._name = name
        self._size = size
        self._got = 0
        self._hash = hashlib.sha256()
        self._stack = ExitStack()
        self._memory = self._stack.enter_context(arena.mapped(entry.extent))

    def __enter__(self) -> Reception:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if kind:
            _free(self._arena, self._entry)

    def add(self, data: bytes) -> None:
        """The next bytes; raises BadRequestError if these are too many."""
        if self._got + len(data) > self._size:
            raise BadRequestError(f"more came than the {self._size} bytes that were announced")
        start = _DATA + self._got
        self._memory[start : start + len(data)] = data
        self._hash.update(data)
        self._got += len(data)

    def finish(self) -> None:
        """That was all: keep it; raises BadRequestError if it is not what was announced."""
        if f"{HASH}{self._hash.hexdigest()}" != self._name or self._got != self._size:
            raise BadRequestError(
                "what came is not the file that was announced", "it changed meanwhile, try it again"
            )
        self._memory[: _HEADER.size] = _HEADER.pack(MAGIC, self._size)


def missing(name: str) -> BadRequestError:
    """The error for a file that the arena has not got."""
    hint = "give the file itself: --kernel FILE, --initrd FILE, or login=FILE of a disk"
    return BadRequestError(f"this machine does not have the file {name}", hint)


def _free(arena: Arena, entry: Entry, check: Callable[[], None] = lambda: None) -> None:
    # Whoever else does so at the same time has done it.
    with suppress(BadRequestError, FencedError):
        arena.free(entry.name, entry.owner, check)


def _extent_name(name: str) -> str:
    return f"{PREFIX}{name.removeprefix(HASH)[:_DIGITS]}"
