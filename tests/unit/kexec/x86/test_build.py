# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import itertools
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiroot.arch.x86 import LEDGER
from multiroot.errors import BadRequestError, ConflictError
from multiroot.kexec.boot import BootPlan, MemoryType, RootSpec
from multiroot.kexec.x86.build import build
from multiroot.kexec.x86.e820 import TYPES
from multiroot.kexec.x86.image import parse
from multiroot.kexec.x86.layout import minimum_carve
from multiroot.ranges import Range, align_up
from multiroot.units import GIB, MIB, PAGE

from .bzimage import BzImage
from .walker import Memory, acpi_tables, translate

KERNEL = BzImage().build()
INITRD = b"070701" + bytes(9999)
SPEC = RootSpec(
    root=2,
    carve=Range(0x1_1800_0000, GIB),
    low=Range(0x20000, 0x20000),
    hardware_ids=(2, 3),
    boot_hardware_id=0,
    tsc_khz=2_000_000,
    wide_ids=False,
    reserved=((LEDGER, "ledger"),),
    pmem=(Range(0x1_0000_0000, 384 * MIB), Range(0x1_8000_0000, 512 * MIB)),
    hz=250,
)


def memory(plan: BootPlan) -> Memory:
    return Memory({segment.phys: segment.data for segment in plan.segments})


@st.composite
def specs(draw: st.DrawFn) -> tuple[RootSpec, int]:
    """A spec with a carve and low window anywhere, and the size of an initrd that fits."""
    initrd = draw(st.integers(0, 40 * MIB))
    least = minimum_carve(parse(KERNEL), initrd)
    size = align_up(least, 2 * MIB) + draw(st.integers(0, 4096)) * 2 * MIB
    # Often across a GiB or 512 GiB boundary.
    base = (
        draw(st.integers(1, 1 << 20) | st.sampled_from([511, 255, 256 * 1024 - 40, 512 * 256 - 3])) * 2 * MIB
    )
    low = Range(draw(st.integers(0x20, 0x80)) * PAGE, draw(st.integers(17, 32)) * PAGE)
    ids = draw(st.lists(st.integers(1, 500), min_size=1, max_size=40, unique=True))
    spec = replace(SPEC, carve=Range(base, size), low=low, hardware_ids=tuple(ids), pmem=())
    pmem = (Range(spec.carve.end + GIB, GIB),) if draw(st.booleans()) else ()
    return replace(spec, pmem=pmem, wide_ids=draw(st.booleans())), initrd


@settings(max_examples=60, deadline=None)
@given(specs())
def test_invariants(case: tuple[RootSpec, int]) -> None:
    spec, initrd_size = case
    plan = build(KERNEL, bytes(initrd_size), "quiet", spec)
    shared = Range(spec.carve.base + 2 * MIB, 2 * MIB)
    trampoline = Range(spec.low.base, PAGE)
    ranges = [segment.range for segment in plan.segments]
    assert ranges == sorted(ranges)
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(ranges))
    for item in ranges:
        assert item.base % PAGE == 0
        assert spec.carve.contains(item) or spec.low.contains(item)
        assert not item.overlaps(shared)
        assert not item.overlaps(trampoline)
        assert not item.overlaps(plan.layout.stack)
    assert plan.trampoline == trampoline.base
    assert plan.page_table < 1 << 32
    assert plan.stack == plan.layout.stack.end


@settings(max_examples=60, deadline=None)
@given(specs())
def test_the_memory_map_is_sorted_and_tells_no_lies(case: tuple[RootSpec, int]) -> None:
    spec, initrd_size = case
    plan = build(KERNEL, bytes(initrd_size), "", spec)
    ranges = [entry.range for entry in plan.memory]
    assert ranges == sorted(ranges)
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(ranges))
    ram = [entry.range for entry in plan.memory if entry.type is MemoryType.RAM]
    assert all(spec.carve.contains(item) or spec.low.contains(item) for item in ram)
    loaded = [segment for segment in plan.segments if segment.what in ("kernel", "initrd")]
    assert all(any(item.contains(segment.range) for item in ram) for segment in loaded)
    kept = [segment for segment in plan.segments if segment not in loaded]
    assert not any(item.overlaps(segment.range) for item in ram for segment in kept)
    assert any(item.contains(plan.layout.kernel) for item in ram)
    assert [entry.range for entry in plan.memory if entry.type is MemoryType.PMEM] == list(spec.pmem)
    assert LEDGER in [entry.range for entry in plan.memory if entry.type is MemoryType.RESERVED]


@settings(max_examples=60, deadline=None)
@given(specs())
def test_the_cpu_can_follow_every_pointer(case: tuple[RootSpec, int]) -> None:
    """What the 64-bit boot protocol asks for: kernel, boot_params and command line mapped onto themselves."""
    spec, initrd_size = case
    plan = build(KERNEL, bytes(initrd_size), "", spec)
    walk = memory(plan)
    kernel = plan.layout.kernel
    for address in (
        plan.entry,
        plan.boot_params,
        plan.stack - 8,
        kernel.base,
        kernel.end - 1,
        0,
        4 * GIB - 1,
    ):
        assert translate(walk, plan.page_table, address) == address
    if plan.layout.initrd:
        assert translate(walk, plan.page_table, plan.layout.initrd.end - 1) == plan.layout.initrd.end - 1
    acpi_tables(walk, struct.unpack("<Q", walk.read(plan.boot_params + 0x70, 8))[0])


def test_boot_params_by_offset() -> None:
    plan = build(KERNEL, INITRD, "quiet", SPEC)
    walk = memory(plan)
    page = walk.read(plan.boot_params, PAGE)
    assert page[0x1F1:0x1FA] == KERNEL[0x1F1:0x1FA]
    assert page[0x1EF] == 0  # sentinel
    assert page[0x210] == 0xFF
    assert page[0x211] & 1
    low, high = struct.unpack_from("<I", page, 0x228)[0], struct.unpack_from("<I", page, 0xC8)[0]
    text = walk.read(high << 32 | low, len(plan.command_line) + 1)
    assert text == plan.command_line.encode() + b"\0"
    image, size = struct.unpack_from("<II", page, 0x218)
    image |= struct.unpack_from("<I", page, 0xC0)[0] << 32
    assert (size, struct.unpack_from("<I", page, 0xC4)[0]) == (len(INITRD), 0)
    assert walk.read(image, size) == INITRD
    assert page[0x1E8] == len(plan.memory)
    table = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * i) for i in range(page[0x1E8])]
    assert table == [(entry.range.base, entry.range.size, TYPES[entry.type]) for entry in plan.memory]
    assert (SPEC.carve.base + 4 * MIB, SPEC.carve.size - 4 * MIB, 1) in table
    assert plan.entry == SPEC.carve.base + 16 * MIB + 0x200
    assert walk.read(plan.entry - 0x200, 64) == KERNEL[5 * 512 : 5 * 512 + 64]


def test_no_initrd() -> None:
    plan = build(KERNEL, b"", "", SPEC)
    assert "initrd" not in [segment.what for segment in plan.segments]
    assert memory(plan).read(plan.boot_params + 0x218, 8) == bytes(8)


def test_the_fake_ioapic_is_below_4_gib_and_empty() -> None:
    plan = build(KERNEL, INITRD, "", SPEC)
    assert plan.layout.ioapic < 1 << 32
    assert memory(plan).read(plan.layout.ioapic, PAGE) == bytes(PAGE)


def test_kernels_that_prefer_a_high_address() -> None:
    kernel = BzImage(pref_address=0x1000_0000).build()
    plan = build(kernel, b"", "", replace(SPEC, carve=Range(0x200_0000, 512 * MIB), pmem=()))
    assert plan.layout.kernel.base == 0x1000_0000
    with pytest.raises(BadRequestError, match="runs no lower than"):
        build(kernel, b"", "", replace(SPEC, carve=Range(0x200_0000, 200 * MIB), pmem=()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"carve": Range(0x1_1800_1000, GIB)}, BadRequestError, "aligned"),
        ({"carve": Range(0x1_1800_0000, GIB + PAGE)}, BadRequestError, "aligned"),
        ({"carve": Range(0, GIB)}, BadRequestError, "below 1 MiB"),
        ({"carve": Range(0x1_1800_0000, 64 * MIB)}, BadRequestError, "kernel image: too large"),
        ({"low": Range(0x20000, 0x8000)}, BadRequestError, "too small"),
        ({"low": Range(0x20800, 0x20000)}, BadRequestError, "page aligned"),
        ({"low": Range(0x8000, 0x20000)}, BadRequestError, "not between"),
        ({"low": Range(0x90000, 0x20000)}, BadRequestError, "not between"),
        ({"low": Range(0x10000, 0x20000)}, ConflictError, "overlaps"),
        ({"pmem": (Range(0x1_2000_0000, GIB),)}, ConflictError, "RAM at .* overlaps PMEM"),
        ({"pmem": tuple(Range(GIB * (i + 9), PAGE) for i in range(130))}, BadRequestError, "136 entries"),
        ({"hardware_ids": ()}, BadRequestError, "at least one CPU"),
        ({"hardware_ids": (2, 2)}, BadRequestError, "only once"),
        ({"tsc_khz": 0}, BadRequestError, "makes no sense"),
        ({"root": 0}, BadRequestError, "makes no sense"),
    ],
)
def test_what_is_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(KERNEL, INITRD, "", replace(SPEC, **change))  # type: ignore[arg-type]


def test_an_initrd_too_large_is_not_blamed_on_the_kernel() -> None:
    with pytest.raises(BadRequestError, match="initrd: too large"):
        build(KERNEL, bytes(40 * MIB), "", replace(SPEC, carve=Range(0x1_1800_0000, 128 * MIB)))


def test_kernels_that_can_not_be_above_4_gib() -> None:
    kernel = BzImage(xloadflags=1).build()
    with pytest.raises(BadRequestError, match="above 4 GiB"):
        build(kernel, INITRD, "", SPEC)
    build(kernel, INITRD, "", replace(SPEC, carve=Range(0x4000_0000, GIB)))


def test_a_huge_carve_is_mapped_as_far_as_it_is_loaded() -> None:
    plan = build(KERNEL, INITRD, "", replace(SPEC, carve=Range(1 << 40, 1 << 40)))
    walk = memory(plan)
    assert translate(walk, plan.page_table, plan.layout.kernel.end) == plan.layout.kernel.end
    assert translate(walk, plan.page_table, (1 << 41) - 1) is None
