# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.arena import layout
from multiroot.arena.arena import Arena, format_arena, open_or_format
from multiroot.arena.errors import FencedError
from multiroot.arena.layout import Owner, Record
from multiroot.errors import BadRequestError, ConflictError, MultirootError, WaitTimeoutError
from multiroot.units import HUGE_PAGE, MIB

SPAWN = multiprocessing.get_context("spawn")


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_allocate_find_free(arena: Arena) -> None:
    entry = arena.allocate("vm0", 4 * MIB, definition=42)
    assert (entry.record.offset, entry.record.size, entry.record.definition) == (2 * MIB, 4 * MIB, 42)
    assert entry.owner == Owner(1, 1)
    assert arena.find("vm0") == entry
    assert arena.entries() == [entry]
    arena.free("vm0", entry.owner)
    assert arena.entries() == []
    assert [gap.size for gap in arena.free_extents()] == [62 * MIB]
    with pytest.raises(BadRequestError, match="no extent named 'vm0'"):
        arena.find("vm0")


def test_what_has_a_reserved_name_is_no_vm(arena: Arena) -> None:
    tables = arena.allocate(f"{layout.RESERVED}iommu-tables", 2 * MIB, 0)
    vm = arena.allocate("vm0", 2 * MIB, 1)
    assert arena.entries() == [tables, vm]
    assert arena.vms() == [vm]
    assert [entry.record.kind for entry in arena.entries()] == ["iommu-tables", "vm"]


def test_another_root_sees_the_same(arena: Arena, formatted: Path) -> None:
    entry = arena.allocate("vm0", 2 * MIB, 1)
    other = Arena(formatted, root=2)
    assert other.entries() == [entry]
    assert other.superblock == arena.superblock
    other.close()


def test_duplicate_name_changes_nothing(arena: Arena) -> None:
    arena.allocate("vm0", 2 * MIB, 1)
    before = arena.memory.read(0, layout.METADATA_SIZE)
    with pytest.raises(ConflictError, match="already holds an extent named 'vm0'"):
        arena.allocate("vm0", 2 * MIB, 1)
    with pytest.raises(ConflictError, match="no free extent"):
        arena.allocate("vm1", 64 * MIB, 1)
    with pytest.raises(BadRequestError, match="multiple"):
        arena.allocate("vm1", 3 * MIB, 1)
    with pytest.raises(BadRequestError, match="not a name"):
        arena.allocate("", 2 * MIB, 1)
    after = arena.memory.read(0, layout.METADATA_SIZE)
    lock = slice(layout.LOCK_OFFSET, layout.LOCK_OFFSET + 8)
    assert before[lock] == after[lock] == bytes(8)
    assert before == after


def test_full_table(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ENTRY_COUNT", 2)
    arena.allocate("a", 2 * MIB, 1)
    arena.allocate("b", 2 * MIB, 1)
    with pytest.raises(ConflictError, match="table is full"):
        arena.allocate("c", 2 * MIB, 1)


def test_take_moves_ownership_once(arena: Arena) -> None:
    owner = arena.allocate("vm0", 2 * MIB, 1).owner
    new = arena.take("vm0", owner, root=2)
    assert new == Owner(2, owner.epoch + 1)
    with pytest.raises(FencedError, match="owned by root 2 in epoch 2, not by root 1 in epoch 1") as fenced:
        arena.take("vm0", owner, root=3)
    assert (fenced.value.root, fenced.value.epoch) == (2, 2)
    assert arena.find("vm0").owner == new


def test_same_root_raising_the_epoch_fences_the_late_taker(arena: Arena) -> None:
    owner = arena.allocate("vm0", 2 * MIB, 1).owner
    word = arena.owner_word("vm0")
    kept = word.take(owner, 1)
    with pytest.raises(FencedError):
        word.take(owner, 2)
    assert word.read() == kept == Owner(1, 2)


def test_free_needs_the_owner(arena: Arena) -> None:
    owner = arena.allocate("vm0", 2 * MIB, 1).owner
    arena.take("vm0", owner, 2)
    with pytest.raises(FencedError):
        arena.free("vm0", owner)
    assert [entry.name for entry in arena.entries()] == ["vm0"]


def test_new_vm_of_an_old_name_cannot_be_taken_by_an_old_claim(arena: Arena) -> None:
    old = arena.allocate("vm0", 2 * MIB, 1).owner
    second = arena.take("vm0", old, 1)
    word = arena.owner_word("vm0")
    arena.free("vm0", second)
    again = arena.allocate("vm0", 2 * MIB, 1)
    assert again.owner.epoch > second.epoch
    for claim in (old, second):
        with pytest.raises(FencedError):
            word.take(claim, 2)


def test_memory_of_a_former_vm_is_zeroed(arena: Arena, formatted: Path) -> None:
    entry = arena.allocate("vm0", 4 * MIB, 1)
    patch(formatted, entry.record.offset, b"secret" * 1000)
    arena.free("vm0", entry.owner)
    again = arena.allocate("vm1", 4 * MIB, 1)
    assert again.record.offset == entry.record.offset
    data = formatted.read_bytes()[again.record.offset : again.record.end]
    assert not any(data)


def test_memory_of_unknown_content_is_zeroed_after_a_forced_format(formatted: Path) -> None:
    patch(formatted, 2 * MIB, b"old life")
    format_arena(formatted, force=True)
    arena = Arena(formatted, root=1)
    entry = arena.allocate("vm0", 2 * MIB, 1)
    arena.close()
    assert not any(formatted.read_bytes()[entry.record.offset : entry.record.end])


def test_interrupted_free_is_completed(arena: Arena) -> None:
    entry = arena.allocate("vm0", 62 * MIB, 1)
    arena.owner_word("vm0").drop(entry.owner)  # the caller died before the entry was cleared
    again = arena.allocate("vm0", 62 * MIB, 1)
    assert again.owner == Owner(1, entry.owner.epoch + 1)


@pytest.mark.parametrize("copy", [0, 1])
def test_one_torn_superblock_is_survived(formatted: Path, copy: int) -> None:
    patch(formatted, layout.SUPERBLOCK_OFFSETS[copy] + 100, b"\xff")
    Arena(formatted, root=1).close()


def test_broken_superblocks_are_refused_and_nothing_changes(formatted: Path) -> None:
    patch(formatted, layout.SUPERBLOCK_OFFSETS[0], b"\xff")
    patch(formatted, layout.SUPERBLOCK_OFFSETS[1] + 100, b"\xff")
    before = formatted.read_bytes()
    for attempt in (lambda: Arena(formatted, root=1), lambda: open_or_format(formatted, root=1)):
        with pytest.raises(BadRequestError, match="copy 1: no superblock; copy 2: superblock checksum"):
            attempt()
    with pytest.raises(ConflictError, match="not blank"):
        format_arena(formatted)
    assert formatted.read_bytes() == before


def test_damaged_entry_is_refused(arena: Arena, formatted: Path) -> None:
    arena.allocate("vm0", 2 * MIB, 1)
    patch(formatted, layout.entry_offset(0) + layout.RECORD_OFFSET + 10, b"\xff")
    for attempt in (arena.entries, lambda: arena.allocate("vm1", 2 * MIB, 1)):
        with pytest.raises(ConflictError, match=r"entry 0 .* damaged"):
            attempt()


def test_blank_device_is_formatted_on_request_only(blank: Path) -> None:
    with pytest.raises(BadRequestError, match="no valid arena"):
        Arena(blank, root=2)
    arena = open_or_format(blank, root=1)
    uuid = arena.superblock.uuid
    arena.close()
    again = open_or_format(blank, root=1)
    assert again.superblock.uuid == uuid
    again.close()


def test_truncated_device(formatted: Path) -> None:
    with formatted.open("r+b") as file:
        file.truncate(32 * MIB)
    with pytest.raises(BadRequestError, match="made 0x4000000 bytes large"):
        Arena(formatted, root=1)


def test_unusable_paths(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="No such file"):
        Arena(tmp_path / "none", root=1)
    small = tmp_path / "small"
    small.write_bytes(bytes(HUGE_PAGE))
    with pytest.raises(BadRequestError, match="too small"):
        Arena(small, root=1)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadRequestError, match="neither a device of persistent memory nor a file"):
        Arena(tmp_path / "fifo", root=1)


def hold_lock_and_die(path: Path, root: int) -> None:
    arena = Arena(path, root)
    with arena._lock.held():
        os._exit(0)


def test_lock_of_a_dead_process_of_the_same_root_is_broken(arena: Arena, formatted: Path) -> None:
    process = SPAWN.Process(target=hold_lock_and_die, args=(formatted, 1))
    process.start()
    process.join()
    assert arena.memory.load(layout.LOCK_OFFSET) != 0
    arena.allocate("vm0", 2 * MIB, 1)
    assert arena.memory.load(layout.LOCK_OFFSET) == 0


def test_lock_of_another_root_is_broken_only_if_that_root_is_dead(arena: Arena, formatted: Path) -> None:
    process = SPAWN.Process(target=hold_lock_and_die, args=(formatted, 2))
    process.start()
    process.join()
    with pytest.raises(WaitTimeoutError, match="of root 2"), arena._lock.held(timeout_s=0.01):
        pass
    knowing = Arena(formatted, root=1, root_is_dead=lambda root: root == 2)
    knowing.allocate("vm0", 2 * MIB, 1)
    knowing.close()


def contend(path: Path, root: int, rounds: int, barrier: Barrier, wins: object) -> None:
    arena = Arena(path, root)
    word = arena.owner_word("vm0")
    for epoch in range(1, rounds + 1):
        barrier.wait()
        # Whoever won the last round owns it; both know that from the word alone.
        expected = Owner(word.read().root, epoch)
        barrier.wait()
        try:
            word.take(expected, root)
            wins.put((epoch, root))  # type: ignore[attr-defined]
        except FencedError:
            pass
    arena.close()


def test_two_processes_contend_and_exactly_one_wins_each_time(arena: Arena, formatted: Path) -> None:
    rounds = 200
    arena.allocate("vm0", 2 * MIB, 1)
    barrier, wins = SPAWN.Barrier(2), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=contend, args=(formatted, root, rounds, barrier, wins)) for root in (1, 2)
    ]
    for worker in workers:
        worker.start()
    won = sorted(wins.get(timeout=60) for _ in range(rounds))
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [epoch for epoch, _ in won] == list(range(1, rounds + 1))
    assert wins.empty()
    assert arena.find("vm0").owner == Owner(won[-1][1], rounds + 1)


def allocate_many(path: Path, root: int, count: int, barrier: Barrier) -> None:
    arena = Arena(path, root)
    barrier.wait()
    for number in range(count):
        entry = arena.allocate(f"vm{root}-{number}", 2 * MIB, 1)
        if number % 2:
            arena.free(entry.name, entry.owner)
    arena.close()


def test_two_processes_allocate_without_overlap(arena: Arena, formatted: Path) -> None:
    barrier = SPAWN.Barrier(2)
    workers = [SPAWN.Process(target=allocate_many, args=(formatted, root, 14, barrier)) for root in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    names = {entry.name for entry in arena.entries()}
    assert names == {f"vm{root}-{number}" for root in (1, 2) for number in range(0, 14, 2)}
    arena.free_extents()  # raises if any two overlap


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(owners=st.lists(st.integers(1, 5), min_size=1, max_size=12), stale=st.data())
def test_no_stale_claim_ever_succeeds(formatted: Path, owners: list[int], stale: st.DataObject) -> None:
    format_arena(formatted, force=True, lives=lambda _: False)
    arena = Arena(formatted, root=1)
    history = [arena.allocate("vm0", 2 * MIB, 1).owner]
    for root in owners:
        claim = stale.draw(st.sampled_from(history))
        if claim != history[-1]:
            with pytest.raises(FencedError):
                arena.take("vm0", claim, root)
        history.append(arena.take("vm0", history[-1], root))
    assert [owner.epoch for owner in history] == list(range(1, len(history) + 1))
    arena.close()


def test_the_last_epoch_is_not_passed(arena: Arena) -> None:
    entry = arena.allocate("vm0", 2 * MIB, 1)
    last = Owner(1, layout.MAX_EPOCH)
    arena.memory.store(layout.entry_offset(entry.index) + layout.OWNER_OFFSET, last.pack())
    with pytest.raises(ConflictError, match="no owner word can hold"):
        arena.take("vm0", last, 2)
    assert arena.owner_word("vm0").read() == last


def test_an_extent_that_leaves_the_arena_is_damage(arena: Arena) -> None:
    entry = arena.allocate("vm0", 2 * MIB, 1)
    far = Record("vm0", 1 << 40, 2 * MIB, 1).pack(entry.index)
    arena.memory.write(layout.entry_offset(entry.index) + layout.RECORD_OFFSET, far)
    with pytest.raises(ConflictError, match=r"entry 0 .* damaged"):
        arena.entries()


def test_a_watermark_that_another_root_spoiled_does_no_harm(arena: Arena) -> None:
    arena.memory.store(layout.WATERMARK_OFFSET, 3 * MIB + 1)
    assert arena.allocate("vm0", 4 * MIB, 1).extent.size == 4 * MIB


def test_the_way_to_start_over_names_the_device_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "an arena"
    path.write_bytes(b"\1" * (64 * MIB))
    for attempt in (lambda: format_arena(path), lambda: Arena(path, 1)):
        with pytest.raises(MultirootError) as refused:
            attempt()
        assert f"arena format --device '{path}' --force`" in refused.value.hint
