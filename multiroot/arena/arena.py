# SPDX-License-Identifier: GPL-2.0-or-later
"""The arena as a root uses it: extents by name, each with an owner word that says who may run its VM."""

from __future__ import annotations

import mmap
import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from multiroot.arena import layout
from multiroot.arena.allocator import Extent, free_extents, plan
from multiroot.arena.atomics import Memory
from multiroot.arena.backing import Backing, opened
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import Owner, Record, Superblock
from multiroot.arena.lock import TableLock
from multiroot.arena.switch import Switch
from multiroot.arena.use import check_unused
from multiroot.errors import BadRequestError, ConflictError, MultirootError
from multiroot.ranges import align_up


def _start_over(path: Path) -> str:
    device = shlex.quote(str(path))
    return f"`multiroot arena format --device {device} --force` makes a new arena and forgets every VM in it"


@dataclass(frozen=True)
class Entry:
    """One used entry of the extent table, and its owner at the moment it was read."""

    index: int
    record: Record
    owner: Owner

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def is_vm(self) -> bool:
        """Whether the extent holds a VM's RAM."""
        return self.record.kind == layout.VM

    @property
    def extent(self) -> Extent:
        return Extent(self.record.offset, self.record.size)


class Standing(StrEnum):
    """What an owner means to the root that asks. LOST: the root that owns it has ended."""

    OWN = "own"
    OTHER = "other"
    LOST = "lost"


class OwnerWord:
    """The owner word of one entry. It is looked up beforehand, so that changing it takes one instruction."""

    def __init__(self, memory: Memory, entry: Entry) -> None:
        self._memory = memory
        self._offset = layout.entry_offset(entry.index) + layout.OWNER_OFFSET
        self.name = entry.name

    def read(self) -> Owner:
        return layout.unpack_owner(self._memory.load(self._offset))

    def take(self, expected: Owner, root: int) -> Owner:
        """Make `root` the owner with the next epoch if `expected` still is; returns the new owner.

        Raises FencedError, having changed nothing, when the word holds anything else. Epochs never go
        down, so an owner that was replaced cannot come back by a late or repeated call.
        """
        new = Owner(root, expected.epoch + 1)
        self._exchange(expected, new)
        return new

    def switch(self, expected: Owner, root: int, clock: Callable[[], int]) -> Switch:
        """`take`, to be done in the blackout of a handoff; `clock` stamps it."""
        new = Owner(root, expected.epoch + 1)
        return Switch(self._memory.address(self._offset), expected.pack(), new.pack(), clock)

    def taken(self, switch: Switch, expected: Owner, root: int) -> Owner:
        """The owner once `switch`, which was made of the same, has come to its step TAKEN.

        Raises FencedError, nothing having been changed, when the word held anything else.
        """
        self._check(switch.seen, expected)
        return Owner(root, expected.epoch + 1)

    def drop(self, expected: Owner) -> None:
        """Make nobody the owner if `expected` still is; raises FencedError otherwise."""
        self._exchange(expected, Owner(0, expected.epoch))

    def _exchange(self, expected: Owner, new: Owner) -> None:
        self._check(self._memory.compare_exchange(self._offset, expected.pack(), new.pack()), expected)

    def _check(self, seen: int, expected: Owner) -> None:
        if seen != expected.pack():
            now = layout.unpack_owner(seen)
            raise FencedError(
                f"{self.name} is owned by root {now.root} in epoch {now.epoch},"
                f" not by root {expected.root} in epoch {expected.epoch}",
                root=now.root,
                epoch=now.epoch,
            )


def no_root_is_dead(_root: int) -> bool:
    """For an arena opened without knowledge of the other roots: they count as alive."""
    return False


class Arena:
    """An open arena, used by root number `root`.

    `populates` says whether a VMM may map a guest's RAM ahead of its use (Backing.populates).
    `root_is_dead` says whether the root of that number is certainly gone. What it owns is lost then, and a
    lock of the table that it holds is broken.
    """

    def __init__(self, path: Path, root: int, root_is_dead: Callable[[int], bool] = no_root_is_dead) -> None:
        """Open the arena on `path`; raises BadRequestError, having changed nothing, if none is valid."""
        self._backing = Backing(path)
        self._mapping = self._backing.map(0, layout.METADATA_SIZE)
        self.memory = Memory(self._mapping)
        self.path = path
        self.root = root
        self._root_is_dead = root_is_dead
        self.populates = self._backing.populates()
        self._lock = TableLock(self.memory, root, root_is_dead)
        try:
            self.superblock = _valid_superblock(self.memory, self._backing)
        except MultirootError:
            self.close()
            raise

    def close(self) -> None:
        """Unmap the arena. The arena itself and the VMs in it are not affected."""
        self.memory.close()
        self._mapping.close()
        self._backing.close()

    @property
    def size(self) -> int:
        """Bytes of the whole arena."""
        return self.superblock.size

    @property
    def generation(self) -> int:
        """Changes whenever an entry comes or goes."""
        return self.memory.load(layout.GENERATION_OFFSET)

    def entries(self) -> list[Entry]:
        """Used entries in table order; raises ConflictError if one is damaged."""
        return list(self._used())

    def vms(self) -> list[Entry]:
        """Those of the entries that hold a VM's RAM; not those that are just being freed."""
        return [entry for entry in self._used() if entry.is_vm and entry.owner.root]

    def vm(self, name: str) -> Entry | None:
        """The one of them called `name`."""
        return next((entry for entry in self.vms() if entry.name == name), None)

    def standing(self, owner: Owner) -> Standing:
        """Whether this root owns it, another that lives, or one that has ended. All who ask ask here."""
        if owner.root == self.root:
            return Standing.OWN
        return Standing.LOST if self._root_is_dead(owner.root) else Standing.OTHER

    def vms_of(self, root: int) -> tuple[str, ...]:
        """Names of the VMs that root number `root` owns by their owner words."""
        return tuple(entry.name for entry in self.vms() if entry.owner.root == root)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No VM is started or removed, in any root, while the body runs; raises WaitTimeoutError."""
        with self._lock.held():
            yield

    def find(self, name: str) -> Entry:
        """The entry called `name`; raises BadRequestError if there is none."""
        for entry in self._used():
            if entry.name == name:
                return entry
        raise BadRequestError(f"no extent named {name!r} in the arena", "`multiroot arena show` lists them")

    def free_extents(self) -> list[Extent]:
        """The free parts of the arena, in order of their offsets."""
        return free_extents((entry.extent for entry in self._used()), self.size)

    def check_room(self, size: int) -> None:
        """Raises ConflictError when there is no room for an extent of `size` bytes now; changes nothing."""
        plan((entry.extent for entry in self._used()), size, self.size)

    def allocate(self, name: str, size: int, definition: int) -> Entry:
        """Reserve one contiguous extent of `size` bytes, zeroed, owned by this root.

        `definition` is the checksum of the VM's definition. The first epoch is above every epoch that a freed
        extent had, so that nobody can mistake a new VM for an old one of the same name. Nothing is changed by
        BadRequestError (bad name or size) and ConflictError (name in use, no room).
        """
        layout.encode_name(name)
        layout.check_size(size)
        with self._lock.held():
            self._finish_frees()
            used = self.entries()
            if any(entry.name == name for entry in used):
                raise ConflictError(f"the arena already holds an extent named {name!r}")
            extent = plan((entry.extent for entry in used), size, self.size)
            index = self._free_index({entry.index for entry in used})
            epoch = self.memory.load(layout.EPOCH_OFFSET) + 1
            entry = Entry(index, Record(name, extent.offset, size, definition), Owner(self.root, epoch))
            watermark = align_up(self.memory.load(layout.WATERMARK_OFFSET), layout.ALIGN)
            self.memory.store(layout.WATERMARK_OFFSET, max(watermark, extent.end))
            self._commit(entry)
        stale = min(extent.end, watermark) - extent.offset
        if stale > 0:
            self._backing.zero(extent.offset, stale)
        return entry

    def free(self, name: str, owner: Owner, check: Callable[[], None] = lambda: None) -> None:
        """Give the extent of `name` back; raises FencedError unless `owner` is the one in its word.

        `check` may raise, and then nothing is freed; no extent comes or goes between it and that.
        """
        with self._lock.held():
            entry = self.find(name)
            check()
            OwnerWord(self.memory, entry).drop(owner)
            self._finish_free(entry)

    @contextmanager
    def mapped(self, extent: Extent) -> Iterator[mmap.mmap]:
        """The memory of an extent, while the body runs."""
        with self._backing.map(extent.offset, extent.size) as memory:
            yield memory

    def owner_word(self, name: str) -> OwnerWord:
        """The owner word of VM `name`; raises BadRequestError if there is no such VM."""
        return OwnerWord(self.memory, self.find(name))

    def take(self, name: str, expected: Owner, root: int) -> Owner:
        """`OwnerWord.take` for a VM by name."""
        return self.owner_word(name).take(expected, root)

    def _used(self) -> Iterator[Entry]:
        for index in range(layout.ENTRY_COUNT):
            base = layout.entry_offset(index)
            if self.memory.load(base + layout.STATE_OFFSET) != layout.USED:
                continue
            data = self.memory.read(base + layout.RECORD_OFFSET, layout.RECORD_SIZE)
            owner = layout.unpack_owner(self.memory.load(base + layout.OWNER_OFFSET))
            record = layout.unpack_record(data, index)
            if record.end > self.size:
                raise layout.damaged(index)
            yield Entry(index, record, owner)

    def _free_index(self, used: set[int]) -> int:
        for index in range(layout.ENTRY_COUNT):
            if index not in used:
                return index
        raise ConflictError(f"the arena's table is full ({layout.ENTRY_COUNT} extents)")

    def _commit(self, entry: Entry) -> None:
        """Write the entry. The state word is written last; only then does the entry count as used."""
        base = layout.entry_offset(entry.index)
        self.memory.write(base + layout.RECORD_OFFSET, entry.record.pack(entry.index))
        self.memory.store(base + layout.OWNER_OFFSET, entry.owner.pack())
        self.memory.store(base + layout.STATE_OFFSET, layout.USED)
        self._changed()

    def _finish_frees(self) -> None:
        """Complete frees whose caller died between dropping ownership and clearing the entry."""
        for entry in self.entries():
            if entry.owner.root == 0:
                self._finish_free(entry)

    def _finish_free(self, entry: Entry) -> None:
        highest = max(self.memory.load(layout.EPOCH_OFFSET), entry.owner.epoch)
        self.memory.store(layout.EPOCH_OFFSET, highest)
        self.memory.store(layout.entry_offset(entry.index) + layout.STATE_OFFSET, layout.FREE)
        self._changed()

    def _changed(self) -> None:
        generation = self.memory.load(layout.GENERATION_OFFSET)
        self.memory.store(layout.GENERATION_OFFSET, generation + 1)


def every_root_lives(_root: int) -> bool:
    """For who knows nothing of the other roots."""
    return True


def format_arena(path: Path, *, force: bool = False, lives: Callable[[int], bool] = every_root_lives) -> None:
    """Make an empty arena on `path`; `lives` says whether a root other than this one is alive.

    Raises ConflictError if the metadata area is not blank, unless `force`; then every VM in it is forgotten.
    Whoever forces it: ConflictError if a VM runs in it, or another root that lives owns something there.
    """
    with opened(path) as backing, backing.map(0, layout.METADATA_SIZE) as mapping:
        blank = layout.is_blank(mapping[:])
        if not blank and not force:
            raise ConflictError(f"{path} is not blank", _start_over(path))
        memory = Memory(mapping)
        if not blank:
            try:
                check_unused(path, memory, lives)
            except ConflictError:
                memory.close()
                raise
        memory.write(0, bytes(layout.METADATA_SIZE))
        # Behind a table that we did not write, nothing is known to be zero.
        memory.store(layout.WATERMARK_OFFSET, layout.METADATA_SIZE if blank else backing.size)
        block = Superblock(backing.size, uuid.uuid4()).pack()
        for offset in layout.SUPERBLOCK_OFFSETS:
            memory.write(offset, block)
        memory.close()


def is_blank(path: Path) -> bool:
    """Whether the device has never held an arena."""
    with opened(path) as backing, backing.map(0, layout.METADATA_SIZE) as mapping:
        return layout.is_blank(mapping[:])


def open_or_format(path: Path, root: int, root_is_dead: Callable[[int], bool] = no_root_is_dead) -> Arena:
    """Open the arena, making it first if the device is blank: what the machine's first root does."""
    if is_blank(path):
        format_arena(path)
    return Arena(path, root, root_is_dead)


def open_if_made(
    path: Path, root: int, root_is_dead: Callable[[int], bool] = no_root_is_dead
) -> Arena | None:
    """Open the arena, None if the device is blank; raises BadRequestError for one that is broken."""
    if is_blank(path):
        return None
    return Arena(path, root, root_is_dead)


def _valid_superblock(memory: Memory, backing: Backing) -> Superblock:
    problems: list[str] = []
    for number, offset in enumerate(layout.SUPERBLOCK_OFFSETS, 1):
        try:
            block = layout.unpack_superblock(memory.read(offset, layout.SUPERBLOCK_SIZE))
        except BadRequestError as error:
            problems.append(f"copy {number}: {error.message}")
            continue
        if block.size > backing.size:
            raise BadRequestError(
                f"the arena on {backing.path} was made {block.size:#x} bytes large,"
                f" the device has only {backing.size:#x}"
            )
        return block
    raise BadRequestError(
        f"no valid arena on {backing.path}: {'; '.join(problems)}", _start_over(backing.path)
    )
