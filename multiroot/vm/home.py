# SPDX-License-Identifier: GPL-2.0-or-later
"""Homes: what the arena keeps of a VM that is defined, whether it runs or not.

A home is an extent of the smallest size, named after its VM, so a VM outlives its processes, the agents and
the root that defined it. Its owner word says nothing about who runs the VM; that of the VM's RAM does, which
has an extent of its own while the VM is anything but stopped.

What is kept is written into one of two places, in turns, and its checksum with it: of a write that was cut
short nothing is seen. The rest of a home is the firmware's, for its variables. Nothing that is found in a
home is believed: another root can have written anything.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from mmap import mmap

from multiroot.arena.arena import Arena, Entry
from multiroot.arena.atomics import crc32c
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import ALIGN, RESERVED
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.rpc import border
from multiroot.units import MIB
from multiroot.vm import kept_files
from multiroot.vm.definition import VmDefinition, check_name
from multiroot.vm.fields import from_data, to_data
from multiroot.vm.messages import definition_to_proto
from multiroot.vm.notices import Notice, newest

PREFIX = f"{RESERVED}home-"
SIZE = ALIGN
MAGIC = b"MRVMHOME"
VERSION = 1
SLOTS = (0, 384 << 10)  # where the two places begin
SLOT_SIZE = 384 << 10
VARIABLES_OFFSET = MIB
VARIABLES_SIZE = MIB
_LENGTH = 8  # bytes of the number in front of variables that are kept

# Magic, version, length of what follows; count of the writes, epoch of the extent; checksum over all of it.
_HEADER = struct.Struct("<8sIIQQ")
_CHECKSUM = struct.Struct("<I4x")
_DATA = _HEADER.size + _CHECKSUM.size
_ERROR_MOST = 4096  # characters
_TIME_MOST = 1 << 62


@dataclass(frozen=True)
class Home:
    """What is kept: the VM's definition; why it ended when it last did, and what had happened to it."""

    definition: VmDefinition
    error: str = ""
    notices: tuple[Notice, ...] = ()


def _anything_goes() -> None:
    """For a change that depends on nothing."""


class Homes:
    """The homes in an arena. Another root may make, change or remove one at any time."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def names(self) -> list[str]:
        """The VMs that have one, readable or not."""
        names = (entry.name.removeprefix(PREFIX) for entry in self._entries())
        return sorted(name for name in names if border.VM_NAME.fullmatch(name))

    def exists(self, name: str) -> bool:
        """Whether the VM has one, readable or not."""
        return self._entry(name) is not None

    def files(self) -> set[str] | None:
        """The files that VMs are defined with; None if a home can't be read, or is just being made."""
        homes = [self.read(name) for name in self.names()]
        if None in homes:
            return None
        return {file for home in homes if home for file in kept_files.named(home.definition)}

    def read(self, name: str) -> Home | None:
        """What is kept of a VM; None if it has no home, or one that nobody can read."""
        entry = self._entry(name)
        if entry is None or entry.extent.size != SIZE:
            return None
        with self._mapped(entry) as memory:
            return _newest(memory, entry)[1]

    def make(self, home: Home) -> None:
        """A home for a VM that has none; raises ConflictError if it has one, or there is no room."""
        name = home.definition.name
        check_name(name)
        data = _written(home)
        try:
            entry = self._arena.allocate(f"{PREFIX}{name}", SIZE, crc32c(name.encode()))
        except ConflictError as error:
            if self.exists(name):  # somebody was quicker
                raise ConflictError(
                    f"there is already a VM {name}", f"see `multiroot vm show {name}`"
                ) from error
            raise ConflictError(f"cannot keep {name}: {error.message}", error.hint) from error
        with self._mapped(entry) as memory:
            _write(memory, entry, data)

    def write(self, home: Home, check: Callable[[], None] = _anything_goes) -> None:
        """Keep this from now on, unless `check` raises; no VM is started or removed meanwhile, in any root.

        Raises BadRequestError if the VM has no home.
        """
        data = _written(home)
        name = home.definition.name
        with self._arena.held():
            entry = self._entry(name)
            if entry is None or entry.extent.size != SIZE:
                raise no_vm(name)
            check()
            with self._mapped(entry) as memory:
                _write(memory, entry, data)

    def remove(self, name: str, check: Callable[[], None] = _anything_goes) -> None:
        """Forget a VM, unless `check` raises, which nobody starts meanwhile; BadRequestError if it has no
        home.
        """
        entry = self._entry(name)
        if entry is None:
            raise no_vm(name)
        try:
            self._arena.free(entry.name, entry.owner, check)
        except FencedError as error:
            raise ConflictError(f"{name} was just removed, or made anew") from error

    def read_variables(self, name: str) -> bytes:
        """What the firmware of a VM keeps, VARIABLES_SIZE bytes, zeros at first; BadRequestError without a
        home.
        """
        with self._mapped(self._sure(name)) as memory:
            return memory[VARIABLES_OFFSET : VARIABLES_OFFSET + VARIABLES_SIZE]

    def write_variables(self, name: str, data: bytes) -> None:
        """Keep that, from the first byte on; not in one step. BadRequestError without a home, or room."""
        if len(data) > VARIABLES_SIZE:
            raise BadRequestError(f"{len(data)} bytes of variables do not fit into {VARIABLES_SIZE}")
        with self._mapped(self._sure(name)) as memory:
            memory[VARIABLES_OFFSET : VARIABLES_OFFSET + len(data)] = data

    def variables_offset(self, name: str) -> int:
        """Where these begin in the arena, a multiple of 4 KiB; BadRequestError without a home."""
        return self._sure(name).extent.offset + VARIABLES_OFFSET

    def _sure(self, name: str) -> Entry:
        entry = self._entry(name)
        if entry is None or entry.extent.size != SIZE:
            raise no_vm(name)
        return entry

    def _entries(self) -> list[Entry]:
        # Not those that are just being freed.
        found = self._arena.entries()
        return [entry for entry in found if entry.name.startswith(PREFIX) and entry.owner.root]

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self._entries() if entry.name == f"{PREFIX}{name}"), None)

    @contextmanager
    def _mapped(self, entry: Entry) -> Iterator[mmap]:
        with self._arena.mapped(entry.extent) as memory:
            yield memory


class KeptVariables:
    """What firmware has written, in the homes of its VMs: its length in bytes (64 bits), then itself. A VM
    without a home keeps nothing.
    """

    def __init__(self, homes: Homes) -> None:
        self._homes = homes

    def load(self, vm: str) -> bytes | None:
        """What was stored last, None if there is nothing, or nothing that makes sense."""
        if not self._homes.exists(vm):
            return None
        data = self._homes.read_variables(vm)
        length = int.from_bytes(data[:_LENGTH], "little")
        return data[_LENGTH : _LENGTH + length] if 0 < length <= len(data) - _LENGTH else None

    def store(self, vm: str, content: bytes) -> None:
        """Keep it; raises BadRequestError for more than a home has room for."""
        if self._homes.exists(vm):
            self._homes.write_variables(vm, len(content).to_bytes(_LENGTH, "little") + content)


def no_vm(name: str) -> BadRequestError:
    """The error for a name that no VM has."""
    return BadRequestError(f"no VM named {name!r}", "`multiroot vm list` shows those there are")


def unpack(data: bytes, name: str, epoch: int) -> tuple[int, Home] | None:
    """Which write one of the two places has, and what that kept; None for what is none of this home's."""
    magic, version, length, count, written_epoch = _HEADER.unpack_from(data)
    (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
    if magic != MAGIC or version != VERSION or written_epoch != epoch or length > len(data) - _DATA:
        return None
    content = data[_DATA : _DATA + length]
    if crc32c(data[: _HEADER.size] + content) != checksum:
        return None
    try:
        home = _parsed(content)
    except MultirootError:
        return None
    return (count, home) if home.definition.name == name else None


def pack(home: bytes, count: int, epoch: int) -> bytes:
    """The inverse of `unpack`, of what `written` gives."""
    header = _HEADER.pack(MAGIC, VERSION, len(home), count, epoch)
    return header + _CHECKSUM.pack(crc32c(header + home)) + home


def written(home: Home) -> bytes:
    """A home as text."""
    data = {
        "definition": to_data(home.definition),
        "error": home.error[:_ERROR_MOST],
        "notices": [asdict(notice) for notice in newest(home.notices)],
    }
    return json.dumps(data, ensure_ascii=False).encode(errors="replace")


def _written(home: Home) -> bytes:
    """The same; raises BadRequestError for what could not be read again."""
    data = written(home)
    if len(data) > SLOT_SIZE - _DATA:
        raise BadRequestError(f"the definition of {home.definition.name} is too long to be kept")
    return data


def _parsed(content: bytes) -> Home:
    """Raises BadRequestError for what `written` has not made."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("no JSON") from error
    if not isinstance(data, dict) or not isinstance(data.get("notices"), list):
        raise BadRequestError("no home")
    definition = from_data(data.get("definition"), VmDefinition)
    definition.checked()
    border.check(definition_to_proto(definition))
    why = data.get("error")
    if not isinstance(why, str) or len(why) > _ERROR_MOST:
        raise BadRequestError("no home")
    notices = newest(from_data(each, Notice) for each in data["notices"])
    if not all(0 <= each.at_ns <= _TIME_MOST for each in notices):
        raise BadRequestError("no home")
    return Home(definition, why, notices)


def _newest(memory: mmap, entry: Entry) -> tuple[int, Home | None, int]:
    """How often was written, what is kept, and the place that it is not in."""
    name, epoch = entry.name.removeprefix(PREFIX), entry.owner.epoch
    found = [unpack(memory[start : start + SLOT_SIZE], name, epoch) for start in SLOTS]
    best = max((each[0], slot) for slot, each in enumerate(found) if each) if any(found) else None
    if best is None:
        return 0, None, 0
    count, slot = best
    kept = found[slot]
    assert kept
    return count, kept[1], 1 - slot


def _write(memory: mmap, entry: Entry, data: bytes) -> None:
    count, _, slot = _newest(memory, entry)
    start, whole = SLOTS[slot], pack(data, count + 1, entry.owner.epoch)
    # What is behind a header that is no more is seen by nobody.
    memory[start : start + _DATA] = bytes(_DATA)
    memory[start + _DATA : start + len(whole)] = whole[_DATA:]
    memory[start : start + _DATA] = whole[:_DATA]
