# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/iommu, compiled for this program: roots with tables in one memory, each a library of its own."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from iommu_roots import BASE, DEVICES, LOCK, PAGE, QUEUE, REGISTERS, ROOT_TABLE, SIZE, Machine, Root
from kernel_code import U64, at_places, compiled

EPERM, EBUSY, ENODEV, ESTALE = -1, -16, -19, -116
EIO, ENOMEM, ENODATA = -5, -12, -61
SECOND_US = 1_000_000
RAM = 0x4000_0000  # of a VM
SOURCES = ("main", "switch", "domain", "inherit", "walk", "remap", "share", "tables")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iommu")
    return compiled(folder, "iommu.h", "iommu_glue.c", *(f"iommu/{name}.c" for name in SOURCES))


@pytest.fixture
def unit(tmp_path: Path) -> ctypes.CDLL:
    """The unit's registers, made up, with what writes to them."""
    library = ctypes.CDLL(str(compiled(tmp_path, "iommu.h", "unit_glue.c", "iommu/unit.c")))
    library.use_queue()
    return library


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> Machine:
    return Machine(library, tmp_path)


@pytest.fixture
def first(machine: Machine) -> Root:
    root = machine.root(1)
    assert root.start() == 0
    return root


@pytest.fixture
def second(machine: Machine, first: Root) -> Root:
    root = machine.root(2)
    assert root.join(peer=1) == 0
    return root


def counted(root: Root) -> list[int]:
    """How often the bus counted the driver of each of its devices."""
    return list((ctypes.c_int * 3).in_dll(root.library, "counted"))


@pytest.mark.parametrize("fails", [0, 1])
def test_drivers_that_were_bound_before_are_counted_once_where_the_unit_is_ours(
    machine: Machine, fails: int
) -> None:
    """One that cannot be counted is no reason not to start: the kernel warns when it lets go."""
    root = machine.root(1)
    root["fail_counting"] = fails
    assert root.start() == 0
    assert counted(root) == [1, 0, 0]
    assert root["counted_unlocked"] == 0
    root.library.any_locked.restype = ctypes.c_bool
    assert not root.library.any_locked()


def test_no_driver_is_counted_where_there_is_no_iommu_in_the_end(machine: Machine) -> None:
    root = machine.root(1)
    root["fail_registration"] = 1
    assert root.start() == EBUSY
    assert counted(root) == [0, 0, 0]


def test_words_that_roots_share_are_changed_by_locked_instructions(library: Path) -> None:
    """A kernel with one CPU leaves the lock prefix out of its own cmpxchg(), and so does the one here. (Two
    threads see that only when they meet within some nanoseconds.)"""
    code = subprocess.run(["objdump", "-d", library], capture_output=True, text=True, check=True).stdout
    found = [line for line in code.splitlines() if "cmpxchg" in line]
    assert found
    assert [line for line in found if "lock cmpxchg" not in line] == []


def test_two_roots_do_not_have_the_lock_at_once(machine: Machine, first: Root, second: Root) -> None:
    number, times = ctypes.c_ulong(), 200_000
    with ThreadPoolExecutor(2) as threads:
        for root in (first, second):
            threads.submit(root.library.count, ctypes.byref(number), ctypes.c_ulong(times))
    assert number.value == 2 * times
    assert machine.word(LOCK) == 0


def test_a_living_root_that_is_kept_from_running_keeps_the_lock(machine: Machine, first: Root) -> None:
    """Its virtual CPU may not run for seconds; then it goes on with what it was about."""
    machine.put(LOCK, 2)
    ctypes.c_ulong.in_dll(first.library, "give_back_us").value = 3 * SECOND_US
    first.library.lock_once()
    assert first["given_back"] == 2
    assert first.waited_us == 3 * SECOND_US


@pytest.mark.parametrize("holder", [1, 2, 99])
def test_a_lock_of_who_has_ended_is_taken(machine: Machine, first: Root, holder: int) -> None:
    """By the ledger, or for there is no such root; or this one, which would know."""
    machine.put(LOCK, holder)
    first.living(1)
    first.library.lock_once()
    assert first.waited_us == SECOND_US
    assert machine.word(LOCK) == 0


def test_a_living_root_that_has_gone_wrong_does_not_stop_this_one(machine: Machine, first: Root) -> None:
    machine.put(LOCK, 2)
    first.library.lock_once()
    assert first.waited_us == 4 * SECOND_US
    assert machine.word(LOCK) == 0


def test_a_word_that_keeps_changing_is_no_lock(machine: Machine, first: Root) -> None:
    """Whoever writes it is not one of those that keep to it."""
    machine.put(LOCK, 2)
    ctypes.c_int.in_dll(first.library, "lock_changes").value = 1
    first.library.lock_once()
    assert SECOND_US <= first.waited_us <= 8 * SECOND_US


def test_a_lock_that_was_taken_away_is_not_given_back(machine: Machine, first: Root) -> None:
    """It is another root's by then."""
    with at_places(first.library, lambda where: machine.put(LOCK, 2) if where == "locked" else None):
        first.library.lock_once()
    assert machine.word(LOCK) == 2


def test_a_device_goes_to_the_root_that_translates_the_same(
    machine: Machine, first: Root, second: Root
) -> None:
    assert first.attach(RAM)
    before = machine.context
    assert second.attach(RAM)
    assert machine.context == before, "it is the first root's still"
    assert [second.take_over(giver, RAM) for giver in (3, 1, 1)] == [ESTALE, 0, ESTALE]
    assert machine.context not in (0, before)
    assert [first.library.owned(), second.library.owned()] == [False, True]


@pytest.mark.parametrize("what", ["block", "remap"])
def test_who_waits_for_the_lock_to_change_a_device_may_find_that_another_has_it(
    machine: Machine, first: Root, what: str
) -> None:
    """The other root takes it over with the lock held. From then on only that root writes its entries."""
    assert first.attach(RAM)
    machine.put(LOCK, 2)
    ctypes.c_ulong.in_dll(first.library, "give_back_us").value = 5

    def take(where: str) -> None:
        if where == "turn of others":
            machine.put(DEVICES + 4, 2)
            machine.put(machine.context_at, 0x123000 | 1, 8)

    with at_places(first.library, take):
        getattr(first.library, what)(0)
    assert first.waited_us == 5
    assert machine.context == 0x123000 | 1
    assert machine.interrupt == 0


def test_a_vmm_that_dies_during_the_switch_leaves_no_freed_table_in_place(
    machine: Machine, first: Root, second: Root
) -> None:
    """The taker's. Its device is blocked afterwards: it is never left with a table whose pages are free."""
    assert first.attach(RAM)
    dies = threading.Thread(target=second.library.detach, args=(second.attach(RAM),))

    def die(where: str) -> None:
        if where == "ktime_get_ns" and not dies.ident:
            dies.start()
            dies.join(timeout=0.3)  # it must not come to its end

    with at_places(second.library, die):
        assert second.take_over(1, RAM) == 0
        dies.join()
    assert machine.context == 0


@pytest.mark.parametrize("failing", ["fail_registration", "fail_turning_on"])
def test_a_start_that_fails_leaves_nothing_behind(machine: Machine, failing: str) -> None:
    root = machine.root(1)
    root[failing] = 1
    assert root.start() < 0
    assert [root["mapped"], root["unit_open"], root["unit_on"]] == [0, 0, 0]
    assert root.library.owned()
    assert not root.library.remap(0)
    root[failing] = 0
    assert machine.root(2).join(peer=1) == ENODEV, "no tables are there"
    assert root.start() == 0


def test_a_join_that_fails_leaves_nothing_behind_and_was_not_seen(machine: Machine, first: Root) -> None:
    """multiroot_vfio.ko asks at any time, and must not be told of tables that are about to be unmapped."""
    assert first.attach(RAM)
    root = machine.root(2)
    seen = []
    root["fail_registration"] = 1
    with at_places(
        root.library, lambda where: seen.append(root.library.remap(0)) if "register" in where else None
    ):
        assert root.join(peer=1) == EBUSY
    assert seen == [False]
    assert machine.parts == [1, 0]
    assert [root["mapped"], root["unit_open"]] == [0, 0]
    assert not root.library.remap(0)
    root["fail_registration"] = 0
    assert root.join(peer=1) == 0
    assert machine.parts == [1, 2]


def test_tables_at_work_are_not_made_anew(machine: Machine, first: Root) -> None:
    """A unit that is on is seen before the first byte is written."""
    assert first.attach(RAM)
    before = machine.memory.raw
    another = machine.root(2)
    another["unit_on"] = 1
    assert another.start() == EBUSY
    assert machine.memory.raw == before
    assert [another["mapped"], another["unit_open"]] == [0, 0]


def test_a_root_takes_the_half_that_its_peer_does_not_have(
    machine: Machine, first: Root, second: Root
) -> None:
    """Also the third, after the second was taken back; its tables are not the first one's pages."""
    assert machine.parts == [1, 2]
    assert first.attach(RAM)
    table = machine.context & ~4095
    third = machine.root(3)
    assert third.join(peer=1) == 0
    assert machine.parts == [1, 3]
    before = machine.memory[table - BASE : table - BASE + PAGE]
    assert third.attach(RAM)
    assert machine.memory[table - BASE : table - BASE + PAGE] == before
    # The first has ended, and the fourth has the third beside it.
    assert machine.root(4).join(peer=3) == 0
    assert machine.parts == [4, 3]


def test_devices_of_a_root_that_lives_are_not_inherited_whatever_user_space_believes(
    machine: Machine, first: Root, second: Root
) -> None:
    assert first.attach(RAM)
    assert second.library.inherit() == 0
    assert machine.word(DEVICES + 4, 4) == 1
    assert second.did() == b""
    second.living(2)
    assert second.library.inherit() == 1
    assert machine.word(DEVICES + 4, 4) == 2


def test_a_device_that_is_inherited_is_stopped_where_writes_get_there(first: Root, second: Root) -> None:
    """Its configuration space is free again before its bus mastering ends and it is reset; once."""
    assert first.attach(RAM)
    second.living(2)
    assert second.library.inherit() == 1
    assert second.did() == b"HMR"
    assert second.library.inherit() == 0
    assert second.did() == b"HMR"


def test_what_could_not_be_written_to_is_not_thought_stopped(first: Root, second: Root) -> None:
    assert first.attach(RAM)
    second.living(2)
    second["fail_hold"] = 1
    assert second.library.inherit() == ENOMEM
    assert second.did() == b"H"
    second["fail_hold"] = 0
    assert second.library.inherit() == 1
    assert second.did() == b"HHMR"


def test_functions_with_the_numbers_of_a_card_in_other_segments_are_not_the_card(
    first: Root, second: Root
) -> None:
    """The machine's segments, or a driver's (VMD): what is attached there would be attached to the card."""
    assert first.library.probed(False) == 1
    assert first.attach(RAM)
    assert first.library.probed(False) == first.library.owned_bits() == 1
    assert second.library.probed(True) == 1


def test_functions_with_the_numbers_of_a_card_in_other_segments_are_not_stopped_with_it(
    first: Root, second: Root
) -> None:
    assert first.attach(RAM)
    second.living(2)
    assert second.library.inherit() == 1
    assert second.did() == b"HMR"


def test_a_unit_sees_tables_as_they_are_before_it_is_told_to_look(
    machine: Machine, first: Root, second: Root
) -> None:
    """Also one that reads past the caches of CPUs: root, context and page tables, and those of interrupts."""
    assert first["orders"]
    assert first.attach(RAM)
    assert first.library.remap(0)
    assert machine.interrupt
    domain = second.attach(RAM)
    assert second.take_over(1, RAM) == 0
    assert second.library.remap(1)
    second.library.map_one_more(domain, U64(2 * PAGE), U64(RAM))
    second.library.unmap_one(domain, U64(PAGE))
    third = machine.root(3)
    third.join(peer=2)
    third.living(3)
    assert third.library.inherit() == 1
    assert third.attach(RAM)
    assert third.library.block() == 0
    assert machine.context == 0
    assert [root["stale"] for root in (first, second, third)] == [0, 0, 0]


@pytest.mark.parametrize(("extended", "written"), [(1 << 1, 24), (1 << 1 | 1, 0)])
def test_caches_are_written_back_where_the_unit_is_not_coherent(
    unit: ctypes.CDLL, extended: int, written: int
) -> None:
    U64.in_dll(unit, "extended").value = extended
    assert unit.mr_unit_open(U64(0xFED90000)) == 0
    unit.mr_unit_write_back(ctypes.byref(U64()), ctypes.c_size_t(8))
    unit.mr_unit_write_back(ctypes.byref(U64()), ctypes.c_size_t(16))
    assert ctypes.c_int.in_dll(unit, "written_back").value == written


def test_without_the_claim_nothing_is_changed(first: Root) -> None:
    claim = ctypes.c_int()
    assert first.library.strangers_errors(ctypes.byref(claim)) == EPERM
    assert claim.value == EBUSY


NOWHERE = [0, 8, BASE - 16, BASE + 8, BASE + SIZE, BASE + SIZE - 8, (1 << 64) - 16]


@pytest.mark.parametrize("context", NOWHERE)
def test_a_context_entry_that_is_nowhere_is_not_written(
    machine: Machine, first: Root, second: Root, context: int
) -> None:
    """A root that has gone wrong may have written any address where the entry's is kept."""
    domain = first.attach(RAM)
    assert second.attach(RAM)
    machine.put(DEVICES + 8, context, 8)
    before = machine.memory.raw
    assert not first.attach(RAM)
    assert first.library.block() == EIO
    assert second.take_over(1, RAM) == ENODATA
    first.library.detach(domain)
    assert machine.memory.raw[:PAGE] == before[:PAGE]


@pytest.mark.parametrize(
    ("field", "value"),
    [(QUEUE, value) for value in [*NOWHERE, BASE + SIZE - 16]]
    + [(REGISTERS, 0xFED90008), (ROOT_TABLE, BASE + SIZE), (0, 0), (8, 99)],
)
def test_tables_that_make_no_sense_are_not_joined(
    machine: Machine, first: Root, field: int, value: int
) -> None:
    machine.put(field, value, 4 if field == 8 else 8)
    root = machine.root(2)
    assert root.join(peer=1) == ENODEV
    assert [root["mapped"], root["unit_open"], root["wild"]] == [0, 0, 0]


@pytest.mark.parametrize("tail", [0, 0x10, 0xFF0, 0xFE8, 0x1000, 0x7FFF0, (1 << 64) - 1])
def test_an_order_stays_in_its_page_wherever_the_unit_says_that_the_queue_ends(
    unit: ctypes.CDLL, tail: int
) -> None:
    U64.in_dll(unit, "tail").value = tail
    unit.mr_unit_flush_contexts()
    assert ctypes.c_int.in_dll(unit, "outside").value == 0
    assert U64.in_dll(unit, "tail").value < PAGE
    assert unit.orders() == 2
