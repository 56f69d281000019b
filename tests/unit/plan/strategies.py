# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines and requests for property tests, and a small machine to change by hand."""

from __future__ import annotations

from hypothesis import strategies as st

from multiroot.plan.inventory import Cpu, FirmwareRange, Inventory, MemoryBlock
from multiroot.plan.iomem import Resource
from multiroot.plan.request import Request
from multiroot.ranges import Range
from multiroot.units import GIB, MIB

BLOCK = 128 * MIB
RAM = "System RAM"


def machine(
    *, threads: int = 1, cores: int = 4, reserved: bool = True, pmem: bool = True, movable: int = 0
) -> Inventory:
    """From 4 GiB to 8 GiB: 512 MiB of PMEM, 1 GiB reserved or RAM, RAM that ends in `movable` blocks."""
    high = 4 * GIB
    arena, carve = Range(high, 512 * MIB), Range(high + 512 * MIB, GIB)
    rest = Range.between(carve.end, high + 4 * GIB)
    iomem = [
        Resource(Range(0x1000, 0x9E000), RAM),
        Resource(Range(0xF0000, 0x10000), "Reserved", (Resource(Range(0xF0000, 0x10000), "System ROM"),)),
        Resource(Range.between(MIB, 2 * GIB), RAM, (Resource(Range(16 * MIB, 32 * MIB), "Kernel code"),)),
        Resource(Range(0xFEE00000, 0x1000), "Local APIC"),
    ]
    if pmem:
        iomem.append(Resource(arena, "Persistent Memory (legacy)", (Resource(arena, "namespace0.0"),)))
    iomem.append(Resource(carve, "Reserved" if reserved else RAM))
    iomem.append(Resource(rest, RAM))
    ram = [item.range for item in iomem if item.name == RAM and item.range.base >= MIB]
    numbers = [n for item in ram for n in range(-(-item.base // BLOCK), item.end // BLOCK)]
    blocks = tuple(
        MemoryBlock(n, Range(n * BLOCK, BLOCK), True, "Movable" if i >= len(numbers) - movable else "Normal")
        for i, n in enumerate(numbers)
    )
    count = threads * cores
    cpus = tuple(
        Cpu(n, n, True, tuple(range(n // threads * threads, n // threads * threads + threads)), n == 0)
        for n in range(count)
    )
    firmware = (
        FirmwareRange(Range(0, 0x9FC00), RAM),
        FirmwareRange(Range(0x9FC00, 0x400), "Reserved"),
        FirmwareRange(Range.between(MIB, 2 * GIB), RAM),
        FirmwareRange(Range.between(high if pmem else carve.base, rest.end), RAM),
    )
    return Inventory(1, cpus, tuple(iomem), firmware, blocks)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """A machine whose RAM above 4 GiB is cut into pieces of every kind, with any CPUs."""
    blocks: list[MemoryBlock] = []
    iomem = [
        Resource(Range(0x1000, 0x9E000), RAM),
        Resource(Range.between(MIB, 2 * GIB), RAM, (Resource(Range(16 * MIB, MIB), "Kernel code"),)),
    ]
    firmware = [FirmwareRange(Range(0, 0x9FC00), RAM), FirmwareRange(Range.between(MIB, 2 * GIB), RAM)]
    at = 4 * GIB
    for _ in range(draw(st.integers(1, 7))):
        piece = Range(at, draw(st.integers(1, 10)) * BLOCK)
        kind = draw(
            st.sampled_from(
                ["ram", "ram", "movable", "reserved", "odd", "unlisted", "taken", "pmem", "device", "hole"]
            )
        )
        at = piece.end
        if kind == "hole":
            continue
        if kind == "device":
            iomem.append(Resource(piece, "PCI Bus 0000:00"))
            continue
        firmware.append(FirmwareRange(piece, RAM))
        if kind in ("ram", "movable"):
            image = Resource(Range(piece.base + draw(st.integers(0, 200)) * MIB, MIB), "Kernel code")
            inner = (image,) if draw(st.booleans()) and piece.contains(image.range) else ()
            iomem.append(Resource(piece, RAM, inner))
            mixed = [(True, "Movable"), (True, "Normal"), (True, ""), (False, "")]
            states = st.sampled_from(mixed if kind == "ram" else mixed[:1])
            for n in range(piece.base // BLOCK, piece.end // BLOCK):
                online, zone = draw(states)
                blocks.append(MemoryBlock(n, Range(n * BLOCK, BLOCK), online, zone))
        elif kind == "odd":
            size = draw(st.integers(1, piece.size // MIB)) * MIB - 4096
            iomem.append(Resource(Range(piece.base + 4096, size), "Reserved"))
        elif kind != "unlisted":
            held = (Resource(Range(piece.base, 64 * MIB), "multiroot"),) if kind == "taken" else ()
            name = "Persistent Memory" if kind == "pmem" else "Reserved"
            iomem.append(Resource(piece, name, held))
    return Inventory(1, draw(cpu_sets()), tuple(iomem), tuple(firmware), tuple(blocks))


@st.composite
def cpu_sets(draw: st.DrawFn) -> tuple[Cpu, ...]:
    """Cores of one to three threads, some offline, some another root's, some with unknown APIC id."""
    cpus: list[Cpu] = []
    for core in range(draw(st.integers(2, 6))):
        first, threads = len(cpus), draw(st.integers(1, 3))
        siblings = tuple(range(first, first + threads))
        for thread in siblings:
            hardware_id = core * 4 + thread - first
            known = st.sampled_from([hardware_id] * 9 + [None])
            owner = draw(st.sampled_from([0] * 8 + [1, 2]))
            online = thread == 0 or draw(st.booleans())
            cpus.append(Cpu(thread, draw(known), online, siblings, thread == 0, owner))
    return tuple(cpus)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Sensible and silly ones."""
    sizes = st.integers(1, 24).map(lambda n: n * BLOCK) | st.integers(-1, 4 * GIB)
    places = st.integers(30, 110).map(lambda n: n * BLOCK) | st.integers(-1, 16 * GIB)
    windows = st.builds(Range, st.integers(0, 0x100).map(lambda n: n * 4096), st.integers(1, 0x40000))
    return Request(
        cpus=draw(st.none() | st.lists(st.integers(0, 20), max_size=6).map(tuple)),
        cpu_count=draw(st.none() | st.integers(-1, 20)),
        carve_size=draw(st.none() | sizes),
        carve_base=draw(st.none() | places),
        low=draw(st.none() | windows),
        needed=draw(st.integers(1, 200) | st.just(1500)) * MIB,
        pmem=draw(st.booleans()),
    )
