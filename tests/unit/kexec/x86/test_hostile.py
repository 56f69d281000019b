# SPDX-License-Identifier: GPL-2.0-or-later
"""Any kernel file and any root are built or refused."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from multiroot.errors import MultirootError
from multiroot.kexec.boot import RootSpec
from multiroot.kexec.x86.build import build
from multiroot.kexec.x86.image import parse
from multiroot.kexec.x86.layout import minimum_carve
from multiroot.ranges import PHYS_BITS, Range
from multiroot.units import GIB, MIB, PAGE

from .bzimage import BzImage
from .test_build import INITRD, KERNEL, SPEC

BYTES = st.integers(0, 0xFF)
WORDS = st.integers(0, 0xFFFFFFFF) | st.sampled_from((0, 1, PAGE, MIB, 2 * MIB, 1 << 31, 0xFFFFFFFF))
LONG = WORDS | st.integers(0, (1 << 64) - 1)
IMAGES = st.builds(
    BzImage,
    release=st.sampled_from(("6.12.1-x", "6.17.0", "", "x", "999999999999.1", "6.12\x07")),
    protocol=st.integers(0x0200, 0x0210),
    setup_sects=st.integers(1, 64),
    payload=st.binary(max_size=600),
    syssize=st.none() | WORDS,
    header_end=st.integers(0x202, 0x301),
    loadflags=BYTES,
    xloadflags=st.integers(0, 0xFFFF),
    kernel_alignment=WORDS,
    pref_address=LONG,
    init_size=WORDS,
    cmdline_size=WORDS,
    version_pointer=st.integers(0, 0xFFFF),
    signed_as_pe=st.booleans(),
)


@settings(max_examples=200)
@given(IMAGES, st.lists(st.tuples(st.integers(0, 0x2FF), BYTES), max_size=4))
def test_any_image_is_understood_or_refused(made: BzImage, pokes: list[tuple[int, int]]) -> None:
    if not 0x200 <= made.version_pointer + 0x200 < 0x10000:
        return
    data = bytearray(made.build())
    for at, value in pokes:
        data[at] = value
    # A good CRC: what is found must be found by looking at the fields.
    data[-4:] = (zlib.crc32(data[:-4]) ^ 0xFFFFFFFF).to_bytes(4, "little")
    with suppress(MultirootError):
        image = parse(bytes(data))
        assert image.init_size >= image.payload_size > 0
        minimum_carve(image, 0)
        build(bytes(data), b"", "", SPEC)


def ranges(limit: int) -> st.SearchStrategy[Range]:
    base = st.integers(0, limit - 1) | st.integers(0, limit // PAGE - 1).map(lambda n: n * PAGE)
    size = st.integers(1, 1 << 40) | st.integers(1, 1024).map(lambda n: n * 2 * MIB)
    return st.builds(lambda b, s: Range(b, min(s, (1 << PHYS_BITS) - b)), base, size)


IDS = st.lists(st.integers(-1, 1 << 33) | st.integers(0, 300), max_size=6).map(tuple)
CARVES = st.integers(0, 1 << 22).map(lambda n: Range(n * 2 * MIB, GIB)) | ranges(1 << PHYS_BITS)
SPECS = st.builds(
    RootSpec,
    root=st.integers(-1, 70_000),
    carve=CARVES,
    low=st.just(SPEC.low) | ranges(1 << 20),
    hardware_ids=IDS,
    boot_hardware_id=st.integers(0, 300),
    tsc_khz=st.integers(-1, 1 << 40),
    wide_ids=st.booleans(),
    reserved=st.lists(st.tuples(ranges(1 << 40), st.text(max_size=4)), max_size=3).map(tuple),
    pmem=st.lists(ranges(1 << PHYS_BITS), max_size=3).map(tuple),
    hz=st.integers(-1, 2000),
    later_hardware_ids=IDS,
    ledger_cpus=LONG,
    uart=st.integers(-1, 3),
)


@settings(max_examples=100)
@given(SPECS, st.text(st.characters(codec="ascii"), max_size=20))
def test_any_root_is_built_or_refused(spec: RootSpec, line: str) -> None:
    with suppress(MultirootError):
        build(KERNEL, INITRD, line, spec)


@settings(max_examples=60)
@given(SPECS)
def test_any_cpus_of_a_good_root_are_described_or_refused(spec: RootSpec) -> None:
    """The ACPI tables: everything but the ids is as it should be."""
    with suppress(MultirootError):
        ids = {"hardware_ids": spec.hardware_ids, "later_hardware_ids": spec.later_hardware_ids}
        build(KERNEL, INITRD, "", replace(SPEC, ledger_cpus=spec.ledger_cpus, uart=spec.uart, **ids))
