# SPDX-License-Identifier: GPL-2.0-or-later
"""The record of this machine's architecture, and who may say words of one."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

import multiroot
from multiroot import arch
from multiroot.arch.x86 import X86
from multiroot.errors import BadRequestError, MultirootError

PACKAGE = Path(multiroot.__file__).parent

# Inside of names too (parse_apic_ids, qemu-system-x86_64), but not inside of words (ListVmsRequest).
WORDS = re.compile(
    r"x86|bzimage|e820|pml4|lapic|apic(?!i)|(?<![a-z])(?:acpi|cr3)|(?<![a-z])msrs?(?![a-z])", re.I
)

CPUINFO = """\
processor\t: 0
model name\t: Some CPU
cpu MHz\t\t: 2596.149
apicid\t\t: 4
initial apicid\t: 4
flags\t\t: lm apic svm

processor\t: 3
initial apicid\t: 255
flags\t\t: lm
"""


def may_say(module: str) -> bool:
    return any(module == place or module.startswith(f"{place}/") for place in arch.MAY_SAY)


def says(text: str) -> list[str]:
    return sorted({match[0] for match in WORDS.finditer(text)})


def sources() -> dict[str, str]:
    """Every module that people write, by its path in the package."""
    files = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    return {name: path.read_text() for name, path in files.items() if not name.startswith("rpc/v1/")}


def test_words_are_found() -> None:
    assert says("an APIC id, qemu-system-x86_64; parse_apic_ids(x2apic), cr3") == [
        "APIC",
        "apic",
        "cr3",
        "x86",
    ]
    assert says("ListVmsRequest, hardware_id, capacity, take_msr, msrs") == ["msr", "msrs"]


def test_only_some_modules_say_words_of_one_architecture() -> None:
    """What depends on the processor is asked of `multiroot.arch`; see its docstring."""
    found = {name: said for name, text in sources().items() if (said := says(text)) and not may_say(name)}
    assert found == {}


@pytest.mark.parametrize("place", sorted(arch.MAY_SAY))
def test_who_may_say_them_does(place: str) -> None:
    """The list holds no place that no longer needs to be there."""
    assert any(
        says(text) for name, text in sources().items() if name == place or name.startswith(f"{place}/")
    )


def test_this_machine_has_a_record() -> None:
    assert arch.of("x86_64") is X86
    assert arch.current() in arch.ARCHES


def test_other_machines_are_refused_in_one_line() -> None:
    with pytest.raises(MultirootError, match="riscv64, is not supported") as error:
        arch.of("riscv64")
    assert error.value.hint == "supported: x86_64"


def test_cpuinfo() -> None:
    cpus = X86.cpus
    assert cpus.hardware_ids(CPUINFO) == {0: 4, 3: 255}
    assert cpus.hardware_ids("") == {}
    assert (cpus.clock_khz(CPUINFO), cpus.clock_khz("")) == (2_596_000, 0)
    assert (cpus.model(CPUINFO), cpus.model("")) == ("model name\t: Some CPU", "")
    assert cpus.features(CPUINFO) == {"lm", "apic", "svm"}
    assert cpus.are_wide(CPUINFO)
    assert not cpus.are_wide(CPUINFO.replace("255", "254"))


@pytest.mark.parametrize(
    ("line", "without"),
    [
        ("quiet", ()),
        ("clearcpuid=hfi", ("hfi",)),
        ("quiet clearcpuid=smap,hfi panic=0", ("hfi",)),
        ("clearcpuid=hfi clearcpuid=smap", ()),  # the last list is the one that the kernel reads
        ("noclearcpuid=hfi", ()),
    ],
)
def test_what_a_kernel_is_told_to_do_without(line: str, without: tuple[str, ...]) -> None:
    assert X86.cpus.cleared(line) == without


def kernel_head(release: bytes, pointer: int = 0x300) -> bytes:
    head = bytearray(0x800)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, pointer)
    head[0x500 : 0x500 + len(release)] = release
    return bytes(head)


def test_the_release_is_the_first_word_of_the_version() -> None:
    assert X86.kernel.release(kernel_head(b"6.12.1-mine (me@here) #1\0")) == "6.12.1-mine"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "not a bzImage"),
        (kernel_head(b"\0"), "does not tell"),
        (kernel_head(b"6.12 \0", pointer=0), "does not tell"),
        (kernel_head(b"6.12 \0", pointer=0x5000), "does not tell"),
        (kernel_head(b"6.12" * 0xC0), "does not tell"),
    ],
)
def test_what_tells_no_release(head: bytes, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        X86.kernel.release(head)


def test_the_low_windows_leave_the_ledger_alone() -> None:
    memory = X86.memory
    assert not any(window.overlaps(memory.ledger) for window in memory.low_windows)
    assert list(memory.page_sizes) == sorted(memory.page_sizes)


@pytest.mark.parametrize(
    ("event", "said", "about"),
    [
        ("kvm_msr", "msr_write 6e0 = 0x52c4d7119f", "restart of the timer"),
        ("kvm_msr", "msr_write 80b = 0x0", "end of an interrupt"),
        ("kvm_msr", "msr_write 830 = 0x1000000fd", "IPI"),
        ("kvm_msr", "msr_write 4b564d07 = 0x1", "MSR 4b564d07"),
        ("kvm_msr", "msr_read 6e0 = 0x0", "MSR 6e0"),
        ("kvm_msr", "msr_write 3b = 0x0 (#GP)", "MSR 3b"),
        ("kvm_apic", "apic_write APIC_EOI = 0x0", "end of an interrupt"),
        ("kvm_apic", "apic_write APIC_TMICT = 0x3d090", "restart of the timer"),
        ("kvm_apic", "apic_write APIC_ICR = 0x8fd", "IPI"),
        ("kvm_apic", "apic_read 0x190 = 0x6", "APIC 0x190"),
        ("kvm_pio", "pio_read at 0x3fa size 1 count 1 val 0xc2 ", "serial port"),
        ("kvm_pio", "pio_write at 0xcf8 size 4 count 1 val 0x80000000 ", "port 0xcf8"),
        ("kvm_mmu_spte_requested", "gfn 5324 pfn 105924 level 2", "a page of 2 MiB mapped"),
        ("kvm_mmu_set_spte", "gfn 5200 spte 105800ee7 (rwxu) level 1 at 142564148", "a page of 4 KiB mapped"),
        ("kvm_mmu_set_spte", "gfn 0 spte 105800ee7 (rwxu) level 9 at 142564148", ""),
        ("kvm_page_fault", "vcpu 0 rip 0x403753 address 0x0000000005c00000 error_code 0x100000004", ""),
        ("kvm_msr", "written by nobody", ""),
    ],
)
def test_what_an_exit_was_for(event: str, said: str, about: str) -> None:
    """Lines of a guest of Linux 6.12 on 6.12."""
    assert X86.exits.about(event, said) == about
