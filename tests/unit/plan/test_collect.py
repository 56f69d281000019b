# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.arch import current
from multiroot.errors import MultirootError
from multiroot.plan.collect import ProbedCpu, collect, thread_bits
from multiroot.plan.inventory import Cpu, MemoryBlock
from multiroot.plan.planner import plan
from multiroot.plan.request import Request
from multiroot.ranges import Range
from multiroot.units import MIB

CPUINFO = """\
processor\t: {0}
model name\t: QEMU TCG CPU
apicid\t\t: {1}
initial apicid\t: {1}
flags\t\t: fpu vme
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A machine with two cores of two threads, CPU 3 offline, and three memory blocks."""
    cpu = tmp_path / "sys/devices/system/cpu"
    write(cpu / "present", "0-3")
    write(cpu / "online", "0-2")
    for number, siblings in ((0, "0-1"), (1, "0-1"), (2, "2")):
        write(cpu / f"cpu{number}/topology/thread_siblings_list", siblings)
    write(tmp_path / "proc/cpuinfo", "\n".join(CPUINFO.format(n, n + 8) for n in range(3)))
    write(
        tmp_path / "proc/iomem",
        "00001000-0009fbff : System RAM\n00100000-27ffffff : System RAM\n28000000-37ffffff : Reserved",
    )
    for number, (start, end, kind) in enumerate(
        [(0, 0x9FBFF, "System RAM"), (0x9FC00, 0x9FFFF, "Reserved"), (0x100000, 0x37FFFFFF, "System RAM")]
    ):
        for name, value in (("start", hex(start)), ("end", hex(end)), ("type", kind)):
            write(tmp_path / f"sys/firmware/memmap/{number}/{name}", value)
    memory = tmp_path / "sys/devices/system/memory"
    write(memory / "block_size_bytes", "8000000")
    for number, state, zones in (
        (2, "online", "Normal"),
        (3, "offline", "Normal Movable"),
        (10, "online", "Movable"),
    ):
        write(memory / f"memory{number}/state", state)
        write(memory / f"memory{number}/valid_zones", zones)
        write(memory / f"memory{number}/phys_index", f"{number:08x}")
    return tmp_path


def test_everything_is_read(top: Path) -> None:
    inventory = collect(top)
    assert inventory.cpus == (
        Cpu(0, 8, True, (0, 1), True),
        Cpu(1, 9, True, (0, 1), False),
        Cpu(2, 10, True, (2,), False),
        Cpu(3, None, False, (3,), False),
    )
    assert inventory.reserved_carves == (Range(0x28000000, 256 * MIB),)
    assert inventory.system_ram[1] == Range.between(0x100000, 0x28000000)
    assert inventory.blocks == (
        MemoryBlock(2, Range(0x10000000, 128 * MIB), True, "Normal"),
        MemoryBlock(3, Range(0x18000000, 128 * MIB), False, ""),
        MemoryBlock(10, Range(0x50000000, 128 * MIB), True, "Movable"),
    )
    assert plan(inventory, Request(cpus=(2,), pmem=False)).carve == Range(0x28000000, 256 * MIB)


def test_the_module_knows_more(top: Path) -> None:
    """With APIC ids of offline CPUs it shows that CPU 3 is a thread of CPU 2's core."""
    inventory = collect(top, probe=lambda n: ProbedCpu(n + 8, 2 if n == 3 else 0), root=1, boot_hardware_id=9)
    assert [cpu.siblings for cpu in inventory.cpus] == [(0, 1), (0, 1), (2, 3), (2, 3)]
    assert [cpu.owner for cpu in inventory.cpus] == [0, 0, 0, 2]
    assert [cpu.is_boot for cpu in inventory.cpus] == [True, True, False, False]


def test_a_kernel_without_memory_hotplug(top: Path) -> None:
    memory = top / "sys/devices/system/memory"
    for path in sorted(memory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    memory.rmdir()
    assert collect(top).blocks == ()


@pytest.mark.parametrize("missing", ["proc/iomem", "proc/cpuinfo", "sys/devices/system/cpu/present"])
def test_what_is_missing_is_named(top: Path, missing: str) -> None:
    (top / missing).unlink()
    with pytest.raises(MultirootError, match=missing):
        collect(top)


def test_no_firmware_map(top: Path) -> None:
    (top / "sys/firmware/memmap").rename(top / "elsewhere")
    with pytest.raises(MultirootError, match="memmap is missing"):
        collect(top)


@given(st.dictionaries(st.integers(0, 500), st.integers(0, 5000)))
def test_cpuinfo_round_trip(ids: dict[int, int]) -> None:
    text = "\n".join(CPUINFO.format(number, hardware_id) for number, hardware_id in ids.items())
    assert current().cpus.hardware_ids(text) == ids


@given(st.integers(0, 3), st.integers(2, 5))
def test_thread_bits(bits: int, cores: int) -> None:
    threads = 1 << bits
    ids: dict[int, int | None] = {n: n for n in range(threads * cores)}
    online = {n: tuple(range(n // threads * threads, n // threads * threads + threads)) for n in ids}
    assert thread_bits(online, ids) == bits
    assert thread_bits({n: (n,) for n in ids}, ids) == 0


def test_persistent_memory_that_touches_is_of_two_devices(top: Path) -> None:
    """Also where this kernel was told of both as one."""
    write(top / "proc/iomem", "00100000-27ffffff : System RAM\n40000000-6fffffff : Persistent Memory")
    assert collect(top).pmem == (Range(0x40000000, 0x30000000),)
    for number, (base, size) in enumerate([(0x50000000, 0x20000000), (0x40000000, 0x10000000), (0, 0)]):
        write(top / f"sys/bus/nd/devices/region{number}/resource", hex(base))
        write(top / f"sys/bus/nd/devices/region{number}/size", str(size))
    assert collect(top).pmem == (Range(0x40000000, 0x10000000), Range(0x50000000, 0x20000000))
