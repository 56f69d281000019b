# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root that has ended leaves at work, and in which order csrc/kmod/core ends it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import U64, compiled, loaded

EAGAIN, EBUSY, EINVAL, ENODEV, ENXIO, ERANGE, ETIMEDOUT = -11, -16, -22, -19, -6, -34, -110
ONLINE, OFFLINE, GRANTED, STARTED, PARKED = range(5)
BOOT, ME, OLD = 0, 2, 1  # hardware id; roots
ZERO, ADD = 1, 2
VTD, AMD = 1, 2
MIB, GIB = 1 << 20, 1 << 30
BASE = 4 * GIB
ABSENT = 0xFFFFFFFF
SOURCES = ("core/adopt.c", "core/ecam.c", "core/x86/conf1.c", "core/x86/iommu.c")
# Of a VT-d unit: registers, and bits of its command.
STATUS, ROOT_TABLE, QUEUE_HEAD, QUEUE_TAIL, QUEUE, REMAPPING_TABLE = 0x1C, 0x20, 0x80, 0x88, 0x90, 0xB8
FAULT_CONTROL, MASKED = 0x38, 1 << 31
TE, QIE, IRE = 1 << 31, 1 << 26, 1 << 25
CONTROL, AMD_STATUS = 0x18, 0x2020
PMEM, RAM = 0x8_0000_0000, 0x1234_5000


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("inherit"), "machine.h", "inherit_glue.c", *SOURCES)


@pytest.fixture
def root(module: Path, tmp_path: Path) -> ctypes.CDLL:
    """Root 2, whose parent, root 1, has ended: the boot CPU is parked, its others are parked or offline."""
    library = loaded(module, tmp_path)
    library.unit.restype = ctypes.POINTER(ctypes.c_ubyte * 0x4000)
    for seen in (library.seen, library.seen_at):
        seen.restype = ctypes.c_uint32
    library.attach()
    library.ioapic()
    cpu(library, BOOT, OLD, PARKED, parked=True)
    cpu(library, 2, ME, ONLINE)
    return library


def cpu(root: ctypes.CDLL, hardware_id: int, owner: int, state: int, *, parked: bool = False) -> None:
    root.mr_ledger_set_cpu(hardware_id, owner, state)
    (ctypes.c_bool * 288).in_dll(root, "parked")[hardware_id] = parked


def done(root: ctypes.CDLL) -> list[str]:
    """What was done since this was asked last, in its order."""
    words = (ctypes.c_char * 4096).in_dll(root, "done")
    found = words.value.decode().split()
    words.value = b""
    return found


def set_u64(root: ctypes.CDLL, name: str, value: int) -> None:
    U64.in_dll(root, name).value = value


def later(root: ctypes.CDLL, seconds: float) -> None:
    U64.in_dll(root, "now").value += int(seconds * 1e9)


def memory(root: ctypes.CDLL, action: int, size: int, base: int = BASE) -> int:
    return int(root.memory(action, U64(base), U64(size)))


def two_bridges(root: ctypes.CDLL) -> None:
    """Segment 0 with a second host bridge at bus 0x40, and segment 1; each has a device behind a port."""
    root.ecam(0, 0, 0xFF)
    root.ecam(1, 0, 0x1F)
    root.bridge(0, 0, 0x3F)
    root.bridge(0, 0x40, 0x7F)
    root.bridge(1, 0, 0x1F)
    for index, (segment, bus) in enumerate(((0, 0), (0, 0x40), (1, 0))):
        root.function(2 * index, segment, bus << 8, 1, bus + 1, bus + 1)
        root.function(2 * index + 1, segment, bus + 1 << 8, 0, 0, 0)


def register(unit: ctypes._Pointer[ctypes.Array[ctypes.c_ubyte]], at: int) -> U64:
    return U64.from_buffer(unit.contents, at)


def old_unit(
    root: ctypes.CDLL, index: int = 0, table: int = RAM
) -> ctypes._Pointer[ctypes.Array[ctypes.c_ubyte]]:
    """A VT-d unit at work with tables there."""
    unit = root.unit(index, VTD)
    ctypes.c_uint32.from_buffer(unit.contents, STATUS).value = TE | QIE | IRE
    for at in (ROOT_TABLE, QUEUE, REMAPPING_TABLE):
        register(unit, at).value = table
    return unit


def test_everything_that_works_for_the_parent_is_stopped_in_order_before_memory_may_be_taken(
    root: ctypes.CDLL,
) -> None:
    two_bridges(root)
    unit = old_unit(root)
    cpu(root, 1, OLD, OFFLINE)
    assert memory(root, ZERO, MIB) == memory(root, ADD, 128 * MIB) == EBUSY
    assert root.mr_adopt_inherit() == 0
    silent = [f"silent{at:x}" for at in (0, 0x100, 0x4000, 0x4100, 0x10000, 0x10100)]
    off = [f"unit={QIE | IRE:x}", f"unit={QIE:x}", "unit=0"]
    assert done(root) == ["take1", "ioapic", *silent, *off, "detached"]
    assert ctypes.c_uint32.from_buffer(unit.contents, FAULT_CONTROL).value == MASKED
    assert memory(root, ADD, 128 * MIB) == 0


def test_functions_that_vms_brought_along_and_the_bridges_above_them_go_on(root: ctypes.CDLL) -> None:
    two_bridges(root)
    root.hand(0x4100)
    assert root.mr_adopt_inherit() == 0
    assert [word for word in done(root) if word.startswith("silent")] == [
        "silent0", "silent100", "silent10000", "silent10100",
    ]  # fmt: skip


def test_a_function_that_was_to_be_handed_and_was_not_is_silenced_the_next_time(root: ctypes.CDLL) -> None:
    """The root that gives dies: its child has made the function's segment by then, and takes it away."""
    two_bridges(root)
    root.hand(0x4100)
    assert root.mr_adopt_inherit() == 0
    done(root)
    root.take_back()
    assert root.mr_ecam_silence() == 0
    assert {"silent4000", "silent4100"} <= set(done(root))
    assert root.mr_ecam_show(0, 0x4100) == 0
    assert root.seen(0, 0x4100) != ABSENT


def test_a_bus_that_a_driver_made_has_none_of_the_functions_that_roots_share(root: ctypes.CDLL) -> None:
    """Its domain is none of PCI's segments, and its numbers are those of other functions there."""
    two_bridges(root)
    root.show(0x10000, 0x4100)
    assert root.mr_adopt_inherit() == 0
    assert "silent4100" in done(root)


def test_nothing_is_taken_where_devices_can_not_be_reached(root: ctypes.CDLL) -> None:
    two_bridges(root)
    root.bridge(0x2, 0, 0xFF)
    assert root.mr_adopt_inherit() == ENODEV
    assert "detached" not in done(root)
    assert memory(root, ZERO, MIB) == EBUSY


def test_what_no_ecam_leads_to_is_reached_by_ports_if_it_is_of_segment_0(root: ctypes.CDLL) -> None:
    """Firmware of old machines tells of no ECAM; one that it tells of may end before the last bus."""
    root.ecam(0, 0, 0x3F)
    root.bridge(0, 0, 0x7F)
    for index, rid in enumerate((0, 0x4000)):
        root.function(index, 0, rid, 0, 0, 0)
    assert root.mr_adopt_inherit() == ENODEV, "this machine has no such ports"
    ctypes.c_bool.in_dll(root, "ports").value = True
    done(root)
    assert root.mr_adopt_inherit() == 0
    assert done(root) == ["ioapic", "silent0", "port:silent4000", "detached"]
    assert root.seen(0, 0x4000) == ABSENT
    assert root.mr_ecam_show(0, 0x4000) == 0
    assert root.seen(0, 0x4000) != ABSENT
    assert root.seen_at(0, 0x4000, 0x100) == ABSENT, "ports reach 256 bytes of a function"


def test_a_unit_with_tables_that_outlive_roots_goes_on_and_the_others_do_not(root: ctypes.CDLL) -> None:
    old_unit(root, 0, PMEM)
    half = old_unit(root, 1, PMEM)
    register(half, REMAPPING_TABLE).value = RAM
    root.unit(2, VTD)  # off
    assert root.mr_adopt_inherit() == 0
    assert done(root) == ["ioapic", f"unit={QIE | IRE:x}", f"unit={QIE:x}", "unit=0", "detached"]


def test_a_queue_that_is_not_empty_is_waited_for(root: ctypes.CDLL) -> None:
    unit = old_unit(root)
    register(unit, QUEUE_TAIL).value = 0x40
    assert root.mr_adopt_inherit() == ETIMEDOUT
    register(unit, QUEUE_HEAD).value = 0x40
    assert root.mr_adopt_inherit() == 0
    assert done(root)[-2:] == ["unit=0", "detached"]


def test_a_unit_that_does_not_stop_keeps_its_memory(root: ctypes.CDLL) -> None:
    old_unit(root)
    ctypes.c_bool.in_dll(root, "unit_stuck").value = True
    assert root.mr_adopt_inherit() == ETIMEDOUT
    assert memory(root, ZERO, MIB) == EBUSY


def test_a_unit_of_amd_ends_its_logs_and_queues_and_then_itself(root: ctypes.CDLL) -> None:
    unit = root.unit(0, AMD)
    kept = 1 << 10 | 1 << 18  # coherent, and a bit that nobody knows
    register(unit, CONTROL).value = 1 | 1 << 2 | 1 << 12 | 1 << 50 | 1 << 51 | kept
    assert root.mr_adopt_inherit() == 0
    assert done(root) == ["ioapic", f"unit={1 | 1 << 50 | kept:x}", f"unit={1 << 50 | kept:x}", "detached"]


def test_a_unit_of_amd_that_did_not_stop_is_stopped_the_next_time(root: ctypes.CDLL) -> None:
    """Until then nothing is given away, and its device table is emptied all the same."""
    unit = root.unit(0, AMD)
    register(unit, CONTROL).value = 1 | 1 << 2 | 1 << 12
    register(unit, AMD_STATUS).value = 1 << 4
    stuck = ctypes.c_bool.in_dll(root, "unit_stuck")
    stuck.value = True
    for _ in range(2):
        assert root.mr_adopt_inherit() == ETIMEDOUT
        assert memory(root, ZERO, MIB) == EBUSY
    stuck.value = False
    done(root)
    assert root.mr_adopt_inherit() == 0
    assert done(root)[-2:] == ["unit=0", "detached"]


@pytest.mark.parametrize(
    ("hardware_id", "state", "parked", "answer"),
    [
        (3, PARKED, True, 0),
        (3, GRANTED, False, 0),
        (3, ONLINE, False, EAGAIN),
        (BOOT, PARKED, False, EAGAIN),
        (BOOT, OFFLINE, False, EAGAIN),  # an INIT would reset the machine
    ],
)
def test_every_cpu_of_others_is_at_rest_first(
    root: ctypes.CDLL, hardware_id: int, state: int, parked: bool, answer: int
) -> None:
    cpu(root, hardware_id, OLD, state, parked=parked)
    assert root.mr_adopt_inherit() == answer
    assert ("detached" in done(root)) is not answer


@pytest.mark.parametrize(("hardware_id", "state"), [(3, ONLINE), (3, PARKED), (3, STARTED), (BOOT, PARKED)])
def test_a_cpu_that_does_not_park_by_itself_is_led_to_the_park_in_the_end(
    root: ctypes.CDLL, hardware_id: int, state: int
) -> None:
    """It hangs, or its kernel has ended without it. One that still says why it ends has time for that."""
    cpu(root, hardware_id, OLD, state)
    assert root.mr_adopt_inherit() == EAGAIN
    later(root, 29.9)
    assert root.mr_adopt_inherit() == EAGAIN
    assert done(root) == []
    later(root, 0.2)
    assert root.mr_adopt_inherit() == 0
    assert done(root) == [f"lead{hardware_id}", "ioapic", "detached"]


def test_nothing_is_taken_from_a_cpu_that_can_not_be_led_either(root: ctypes.CDLL) -> None:
    """It is tried again as often as somebody asks."""
    cpu(root, 3, OLD, ONLINE)
    hangs = ctypes.c_bool.in_dll(root, "hangs")
    hangs.value = True
    assert root.mr_adopt_inherit() == EAGAIN
    later(root, 40)
    assert root.mr_adopt_inherit() == root.mr_adopt_inherit() == EAGAIN
    assert done(root) == ["lead3", "lead3"]
    assert memory(root, ZERO, MIB) == EBUSY
    hangs.value = False
    assert root.mr_adopt_inherit() == 0


def test_no_cpu_is_led_away_from_a_root_that_lives(root: ctypes.CDLL) -> None:
    cpu(root, 3, OLD, ONLINE)
    assert root.mr_adopt_inherit() == EAGAIN
    later(root, 40)
    ctypes.c_bool.in_dll(root, "others_live").value = True
    assert root.mr_adopt_inherit() == EBUSY
    assert done(root) == []


def test_memory_waits_for_a_cpu_that_left_its_rest(root: ctypes.CDLL) -> None:
    assert root.mr_adopt_inherit() == 0
    cpu(root, 3, OLD, PARKED)
    assert memory(root, ZERO, MIB) == memory(root, ADD, 128 * MIB) == EAGAIN
    cpu(root, 3, ME, ONLINE)
    assert memory(root, ZERO, MIB) == 0


def test_memory_is_added_in_whole_blocks_also_of_2_gib(root: ctypes.CDLL) -> None:
    assert root.mr_adopt_inherit() == 0
    assert memory(root, ADD, 192 * MIB) == ERANGE
    assert memory(root, ADD, 128 * MIB, BASE + 64 * MIB) == ERANGE
    assert memory(root, ADD, GIB) == EINVAL
    set_u64(root, "block", 2 * GIB)
    assert memory(root, ADD, 512 * MIB) == ERANGE
    assert memory(root, ADD, 2 * GIB) == memory(root, ZERO, 16 * MIB) == 0
    assert f"added{2 * GIB}" in done(root)
    assert memory(root, ADD, 4 * GIB) == EINVAL


@pytest.mark.parametrize(("told", "node"), [(-1, 0), (1, 1), (5, 0)])
def test_memory_goes_to_its_node_if_this_kernel_can_have_it(root: ctypes.CDLL, told: int, node: int) -> None:
    assert root.mr_adopt_inherit() == 0
    ctypes.c_int.in_dll(root, "node").value = told
    assert memory(root, ADD, 128 * MIB) == 0
    assert ctypes.c_int.in_dll(root, "added_node").value == node


def test_functions_are_shown_by_segment_with_the_bridges_above_them(root: ctypes.CDLL) -> None:
    two_bridges(root)
    root.function(6, 0, 0x4101, 0, 0, 0)
    root.hand(0x0100)
    assert root.mr_adopt_inherit() == 0
    assert root.seen(0, 0x4100) == ABSENT
    assert root.mr_ecam_show(0, 0x4200) == root.mr_ecam_show(2, 0) == root.mr_ecam_show(0, 0x10000) == EINVAL
    assert root.mr_ecam_show(0, 0x4101) == ENXIO
    assert root.mr_ecam_show(0, 0x4100) == root.mr_ecam_show(0, 0x4101) == 0
    assert ABSENT not in (root.seen(0, 0x4100), root.seen(0, 0x4101), root.seen(0, 0x4000))
    assert root.seen(0, 0) == root.seen(1, 0) == root.seen(0, 0x100) == ABSENT
    root.mr_ecam_show_all()
    assert root.seen(1, 0x100) != ABSENT
    assert root.seen(0, 0x100) == ABSENT  # it is shown elsewhere
    assert root.seen(0, 0) != ABSENT
    done(root)
    root.write_command(0, 0, 0)  # the bridge above it
    assert done(root) == []
    root.write_command(1, 0, 0)
    assert done(root) == ["silent10000"]
