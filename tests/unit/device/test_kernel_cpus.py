# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs that change roots, in csrc/kmod/core, compiled for this program: only one that says so is at rest."""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel_code import at_places, compiled, loaded

SOURCES = ("core/adopt.c", "core/cpu.c", "core/ledger.c", "core/x86/slot.c")
ONLINE, OFFLINE, GRANTED, STARTED, PARKED = range(5)
SIDE_STARTED, SIDE_READY, SIDE_PARKED = 1, 3, 4
IN_KERNEL, WAITS_FOR_SIPI, IN_PARK, RUNS = range(4)
SLOT_PARKED, SLOT_WAKE, SLOT_AWAKE, SLOT_GO = 1, 2, 3, 0x100
BOOT, MINE, FIRST, SECOND = range(4)  # the machine's boot CPU, this root's, and two for a child
START = 0x99000
SECONDS = 1_000_000


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("cpus"), "cpus.h", "cpus_glue.c", *SOURCES)


@pytest.fixture
def machine(built: Path, tmp_path: Path) -> ctypes.CDLL:
    """Root 1 of two online and two offline CPUs."""
    library = loaded(built, tmp_path)
    library.let_pass.argtypes = [ctypes.c_uint64]
    library.descheduled.argtypes = [ctypes.c_uint32, ctypes.c_uint64]
    library.mr_slot_wake.argtypes = [ctypes.c_uint32, ctypes.c_uint64]
    for name in ("mr_slot_parked", "asked", "told", "uncarve"):
        getattr(library, name).restype = ctypes.c_bool
    library.begin()
    library.be_root(1)
    return library


@pytest.fixture
def child(machine: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """Root 2 was started on two CPUs; its module is up."""
    machine.carved()
    for cpu in (FIRST, SECOND):
        assert machine.grant(cpu) == 0
    machine.start(FIRST)
    machine.mr_ledger_set_cpu(SECOND, 2, ONLINE)
    machine.child_is(SIDE_READY)
    assert machine.alive() == 2
    yield machine
    # What a CPU of this library is to the next test must not depend on this one.
    for cpu in (FIRST, SECOND):
        machine.put(cpu, False, False)
        machine.reclaim(cpu)
    assert [machine.state(cpu) for cpu in (FIRST, SECOND)] == [OFFLINE, OFFLINE]


def owner(machine: ctypes.CDLL, cpu: int) -> tuple[int, int]:
    return machine.mr_ledger_cpu_root(cpu), machine.mr_ledger_cpu_state(cpu)


@pytest.mark.parametrize("cpu", [FIRST, SECOND])
@pytest.mark.parametrize(
    ("vmx", "listens"), [(False, False), (False, True), (True, True)], ids=["no module", "module", "VMX"]
)
def test_a_cpu_that_is_taken_back_is_parked(child: ctypes.CDLL, cpu: int, vmx: bool, listens: bool) -> None:
    child.put(cpu, vmx, listens)
    assert child.reclaim(cpu) == 0
    assert child.place(cpu) == IN_PARK
    assert child.mr_slot_parked(cpu)
    assert owner(child, cpu) == (1, OFFLINE)
    assert not child.asked(cpu)


@pytest.mark.parametrize("cpu", [FIRST, SECOND])
def test_one_that_blocks_inits_and_does_not_listen_keeps_its_root(child: ctypes.CDLL, cpu: int) -> None:
    child.put(cpu, True, False)
    before = owner(child, cpu), child.state(cpu)
    assert child.reclaim(cpu) == -errno.ETIMEDOUT
    assert (owner(child, cpu), child.state(cpu)) == before
    assert child.alive() == 2
    assert child.place(cpu) == IN_KERNEL
    assert not child.asked(cpu)


def test_an_init_that_was_pending_meets_a_startup_ipi(child: ctypes.CDLL) -> None:
    """The first attempt came before the module. In the second it leaves VMX operation: INIT takes it."""
    child.put(FIRST, True, False)
    child.child_is(SIDE_STARTED)
    assert child.reclaim(FIRST) == -errno.ETIMEDOUT
    child.put(FIRST, True, True)
    child.child_is(SIDE_READY)
    assert child.reclaim(FIRST) == 0
    assert child.place(FIRST) == IN_PARK
    assert child.alive() == 1


@pytest.mark.parametrize("seconds", [1, 3, 9])
def test_one_that_is_kept_from_running_is_waited_for(child: ctypes.CDLL, seconds: int) -> None:
    child.put(FIRST, True, True)
    child.descheduled(FIRST, min(seconds, 1) * SECONDS)
    child.put(SECOND, False, False)
    child.descheduled(SECOND, seconds * SECONDS)
    assert [child.reclaim(cpu) for cpu in (SECOND, FIRST)] == [0, 0]


@pytest.mark.parametrize(
    ("side", "state", "nmis"),
    [
        (SIDE_READY, ONLINE, True),
        (SIDE_PARKED, ONLINE, True),
        (SIDE_READY, OFFLINE, False),
        (SIDE_READY, GRANTED, False),
        (SIDE_STARTED, ONLINE, False),
        (77, ONLINE, False),
    ],
)
def test_no_nmi_is_sent_where_no_module_takes_it(
    child: ctypes.CDLL, side: int, state: int, nmis: bool
) -> None:
    """In a kernel that boots it would be the end of the machine."""
    child.child_is(side)
    child.mr_ledger_set_cpu(SECOND, 2, state)
    child.put(SECOND, True, True)
    with nmis_sent(child) as sent:
        assert child.reclaim(SECOND) == (0 if nmis else -errno.ETIMEDOUT)
    assert bool(sent) == nmis


def test_no_nmi_is_sent_to_who_takes_an_init(child: ctypes.CDLL) -> None:
    """QEMU lets a CPU that waits for a startup IPI run at an NMI, wherever that leads."""
    child.child_is(SIDE_READY)
    child.mr_ledger_set_cpu(SECOND, 2, ONLINE)
    child.put(SECOND, False, True)
    with nmis_sent(child) as sent:
        assert child.reclaim(SECOND) == 0
    assert sent == []


@contextmanager
def nmis_sent(machine: ctypes.CDLL) -> Iterator[list[int]]:
    """To which CPUs, in the body."""
    sent: list[int] = []
    hook = ctypes.CFUNCTYPE(None, ctypes.c_uint32)(sent.append)
    pointer = ctypes.c_void_p.in_dll(machine, "nmi_hook")
    pointer.value = ctypes.cast(hook, ctypes.c_void_p).value
    try:
        yield sent
    finally:
        pointer.value = None


def test_a_root_that_comes_to_its_end_meanwhile_does_not_go_on(child: ctypes.CDLL) -> None:
    child.mr_ledger_root_ends(FIRST)
    assert child.alive() == 1
    child.mr_ledger_set_cpu(FIRST, 2, PARKED)
    child.mr_ledger_root_goes_on(FIRST)
    assert child.alive() == 1
    assert owner(child, FIRST) == (2, PARKED)


def test_a_cpu_that_does_not_park_is_not_granted(machine: ctypes.CDLL) -> None:
    machine.carved()
    machine.put(FIRST, True, False)
    assert machine.grant(FIRST) == -errno.ETIMEDOUT
    assert owner(machine, FIRST) == (1, OFFLINE)
    assert machine.state(FIRST) == OFFLINE


def test_of_a_granted_cpu_nothing_is_taken_for_granted(child: ctypes.CDLL) -> None:
    """A stock kernel starts it by an INIT of which nobody hears."""
    assert not child.mr_slot_parked(SECOND)


@pytest.mark.parametrize("slot", [SLOT_PARKED, SLOT_WAKE, SLOT_AWAKE, SLOT_GO | START >> 12])
@pytest.mark.parametrize("cpu", [BOOT, FIRST])
def test_a_parked_cpu_is_woken_from_wherever_it_is_and_never_by_init(
    machine: ctypes.CDLL, cpu: int, slot: int
) -> None:
    machine.put_in_park(cpu, slot)
    machine.descheduled(cpu, 3 * SECONDS)
    assert machine.mr_slot_wake(cpu, START) == 0
    assert (machine.place(cpu), machine.began_at(cpu)) == (RUNS, START)
    assert machine.inits(cpu) == 0


def test_waking_goes_on_where_it_was_given_up(machine: ctypes.CDLL) -> None:
    machine.put_in_park(BOOT, SLOT_PARKED)
    machine.descheduled(BOOT, 25 * SECONDS)
    assert [machine.mr_slot_wake(BOOT, START) for _ in range(3)] == [-errno.ETIMEDOUT, -errno.ETIMEDOUT, 0]
    assert (machine.place(BOOT), machine.resets_so_far()) == (RUNS, 0)


@pytest.mark.parametrize(("cpu", "answer"), [(BOOT, -errno.EPERM), (FIRST, -errno.ENOENT)])
def test_only_the_boot_cpu_may_not_be_started_by_init(machine: ctypes.CDLL, cpu: int, answer: int) -> None:
    assert machine.mr_slot_wake(cpu, START) == answer


@pytest.mark.parametrize(("listens", "answer"), [(True, 0), (False, -errno.ETIMEDOUT)])
def test_the_boot_cpu_is_asked_and_not_reset(machine: ctypes.CDLL, listens: bool, answer: int) -> None:
    machine.put(BOOT, True, listens)
    assert machine.mr_slot_take(BOOT, True) == answer
    assert machine.resets_so_far() == 0


def heir(machine: ctypes.CDLL, room: bool = True) -> None:
    """Root 2, on CPU 1, of a parent that has ended and left CPU 0 parked and the others offline."""
    machine.be_root(2)
    machine.mr_ledger_set_cpu(BOOT, 1, PARKED)
    machine.put_in_park(BOOT, SLOT_PARKED)
    machine.mr_ledger_set_cpu(MINE, 2, STARTED)
    machine.mr_ledger_set_cpu(SECOND, 3, GRANTED)
    machine.first_cpu_is(MINE)
    machine.ended_parent()
    machine.room(room)


def test_offline_cpus_are_parked_before_anything_is_inherited(machine: ctypes.CDLL) -> None:
    heir(machine)
    assert machine.mr_adopt_inherit() == 0
    assert [machine.place(cpu) for cpu in (BOOT, FIRST, SECOND)] == [IN_PARK] * 3
    assert (machine.inits(BOOT), machine.resets_so_far()) == (0, 0)


@pytest.mark.parametrize("spoil", [lambda m: m.put(SECOND, True, False), lambda m: m.mr_slot_forget(BOOT)])
def test_nothing_is_inherited_while_a_cpu_may_run(
    machine: ctypes.CDLL, spoil: Callable[[ctypes.CDLL], None]
) -> None:
    heir(machine)
    spoil(machine)
    assert machine.mr_adopt_inherit() == -errno.EAGAIN
    assert machine.resets_so_far() == 0


@pytest.mark.parametrize(
    ("cpu", "vmx", "listens", "inits"),
    [
        (FIRST, False, False, 1),  # it hangs, with NMIs blocked
        (FIRST, True, True, 2),
        (BOOT, False, True, 0),
        (BOOT, True, True, 0),
    ],
)
def test_a_cpu_that_runs_on_after_its_roots_end_is_led_to_the_park_in_the_end(
    machine: ctypes.CDLL, cpu: int, vmx: bool, listens: bool, inits: int
) -> None:
    heir(machine)
    machine.mr_slot_forget(cpu)
    machine.mr_ledger_set_cpu(cpu, 1, PARKED if cpu == BOOT else ONLINE)
    machine.put(cpu, vmx, listens)
    for _ in range(3):
        assert machine.mr_adopt_inherit() == -errno.EAGAIN
        machine.let_pass(9 * SECONDS)
    assert (machine.place(cpu), machine.inits(cpu)) == (IN_KERNEL, 0)
    machine.let_pass(4 * SECONDS)
    assert machine.mr_adopt_inherit() == 0
    assert machine.place(cpu) == IN_PARK
    assert (machine.inits(cpu), machine.resets_so_far()) == (inits, 0)
    assert not machine.asked(cpu)


@pytest.mark.parametrize(("cpu", "vmx"), [(FIRST, True), (BOOT, False)])
def test_nothing_is_taken_from_one_that_can_be_led_by_nothing(
    machine: ctypes.CDLL, cpu: int, vmx: bool
) -> None:
    heir(machine)
    machine.mr_slot_forget(cpu)
    machine.mr_ledger_set_cpu(cpu, 1, ONLINE)
    machine.put(cpu, vmx, False)
    before = owner(machine, cpu)
    for _ in range(3):
        assert machine.mr_adopt_inherit() == -errno.EAGAIN
        machine.let_pass(40 * SECONDS)
    assert (owner(machine, cpu), machine.place(cpu)) == (before, IN_KERNEL)
    assert machine.adopt(cpu) == -errno.EAGAIN
    assert machine.resets_so_far() == 0


def test_a_cpu_that_there_is_no_place_for_is_left_as_it_was(machine: ctypes.CDLL) -> None:
    heir(machine, room=False)
    assert machine.mr_adopt_inherit() == 0
    for cpu in (BOOT, FIRST, SECOND):
        before = owner(machine, cpu)
        assert machine.adopt(cpu) == -errno.ENODEV
        assert owner(machine, cpu) == before


def test_a_cpu_is_adopted_out_of_the_park_only(machine: ctypes.CDLL) -> None:
    heir(machine)
    assert machine.adopt(FIRST) == -errno.EAGAIN
    assert machine.inits(FIRST) == 0
    assert machine.mr_adopt_inherit() == 0
    assert machine.adopt(FIRST) == 0
    assert owner(machine, FIRST) == (2, OFFLINE)


@pytest.mark.parametrize(("hardware_id", "answer"), [(287, 0), (288, -errno.E2BIG), (1 << 31, -errno.E2BIG)])
def test_a_cpu_that_is_added_and_has_no_place_in_the_ledger_stays_offline(
    machine: ctypes.CDLL, hardware_id: int, answer: int
) -> None:
    """It would park, and it would wait, in memory behind the ledger."""
    assert machine.mr_cpu_init() == 0
    assert machine.bring_added_online(hardware_id) == answer


def test_a_child_does_not_go_while_it_is_told_of_a_cpu_of_its(machine: ctypes.CDLL) -> None:
    """One thread brings a CPU online that the child has, and another takes it back and gives up the carve."""
    machine.carved()
    assert (machine.mr_cpu_init(), machine.grant(FIRST)) == (0, 0)
    stuck_or_done = threading.Event()
    left: list[int] = []

    def leave() -> None:
        left.extend([machine.reclaim(FIRST), machine.uncarve()])
        stuck_or_done.set()

    leaving = threading.Thread(target=leave)

    def at(place: str) -> None:
        if place == "cpus_read_lock":
            stuck_or_done.set()
        if place == "online vetoed":
            leaving.start()
            assert stuck_or_done.wait(10)

    with at_places(machine, at):
        assert machine.bring_online(FIRST) == -errno.EBUSY
        leaving.join(10)
    assert machine.told()
    assert left == [0, True]
