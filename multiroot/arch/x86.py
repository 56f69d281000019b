# SPDX-License-Identifier: GPL-2.0-or-later
"""The record of x86-64 (see `multiroot.arch.arch`)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from multiroot.arch.arch import Arch, Cpus, Exits, GuestDisk, KernelFile, LabMachine, Memory
from multiroot.errors import BadRequestError
from multiroot.ranges import Range
from multiroot.units import GIB, HUGE_PAGE, KIB, PAGE, format_size

# Below 1 MiB: the code of parked CPUs is in it, and CPUs wake up in real mode.
LEDGER = Range(64 * KIB, 64 * KIB)
LAPIC_MAX_ID = 254  # of an xAPIC; 255 is everybody

# Structures of CPUs in a MADT by their type: APIC id and flags of a local APIC, of a local x2APIC.
MADT_ENTRIES_AT = 44
MADT_CPUS = {0: struct.Struct("<3xBI"), 9: struct.Struct("<4xII")}
MADT_ENABLED = 1

# Documentation/arch/x86/boot.rst: offsets in the setup header of a bzImage.
MAGIC_AT, MAGIC = 0x202, b"HdrS"
KERNEL_VERSION_AT = 0x20E  # where the version string is, from the second sector on
SECOND_SECTOR = SECTOR = 0x200
SETUP_SECTORS_AT = 0x1F1  # how many sectors of setup code follow the first
PAYLOAD_AT, _PAYLOAD = 0x248, struct.Struct("<II")  # where the compressed kernel is behind them, and its size


def _paragraphs(cpuinfo: str) -> Iterator[dict[str, str]]:
    """The fields of each CPU."""
    for paragraph in cpuinfo.split("\n\n"):
        lines = (line.partition(":") for line in paragraph.splitlines())
        yield {key.strip(): value.strip() for key, _, value in lines}


def hardware_ids(cpuinfo: str) -> dict[int, int]:
    """APIC ids. A kernel that was built without "apicid" has the id that the CPU started with."""
    found: dict[int, int] = {}
    for fields in _paragraphs(cpuinfo):
        number = fields.get("processor", "")
        apic_id = fields.get("apicid") or fields.get("initial apicid", "")
        if number.isdigit() and apic_id.isdigit():
            found[int(number)] = int(apic_id)
    return found


def clock_khz(cpuinfo: str) -> int:
    match = re.search(r"^cpu MHz\s*: (\d+)", cpuinfo, re.MULTILINE)
    return int(match[1]) * 1000 if match else 0


def model(cpuinfo: str) -> str:
    return next((line for line in cpuinfo.splitlines() if line.startswith("model name")), "")


def features(cpuinfo: str) -> frozenset[str]:
    match = re.search(r"^flags\s*: (.*)$", cpuinfo, re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def table_ids(table: bytes) -> frozenset[int]:
    """APIC ids of the CPUs that a MADT calls enabled (ACPI specification 6.5, 5.2.12)."""
    found, at = set(), MADT_ENTRIES_AT
    while at + 2 <= len(table):
        kind, size = table[at], table[at + 1]
        if kind in MADT_CPUS and size >= 8 and at + size <= len(table):
            hardware_id, flags = MADT_CPUS[kind].unpack_from(table, at)
            found |= {hardware_id} if flags & MADT_ENABLED else set()
        at += max(size, 2)
    return frozenset(found)


def kernel_release(head: bytes) -> str:
    """The release in the version string of a bzImage ("6.1.0-56-cloud-amd64 (builder) ...")."""
    if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        raise BadRequestError("it is not a bzImage", "the setup header's signature HdrS is missing")
    (pointer,) = struct.unpack_from("<H", head, KERNEL_VERSION_AT)
    text, end, _ = head[pointer + SECOND_SECTOR :].partition(b"\0")
    words = text.decode("ascii", "replace").split()
    if not pointer or not end or not words:
        raise BadRequestError("it does not tell its kernel release")
    return words[0]


def kernel_payload(image: bytes) -> bytes:
    """The compressed kernel in a bzImage."""
    if len(image) < PAYLOAD_AT + _PAYLOAD.size:
        return b""
    start, size = _PAYLOAD.unpack_from(image, PAYLOAD_AT)
    # No number of sectors means 4 of them.
    begin = ((image[SETUP_SECTORS_AT] or 4) + 1) * SECTOR + start
    return image[begin : begin + size]


# QEMU's names of features that KVM passes on to guests since a later Linux than 6.1, the oldest one that is
# supported (arch/x86/kvm/cpuid.c, kvm_set_cpu_caps, and for nested guests svm/svm.c, svm_set_cpu_caps).
NEWER_FEATURES = frozenset(
    {
        *(
            "amx-complex",
            "amx-fp16",
            "avx-ifma",
            "avx-ne-convert",
            "avx-vnni-int16",
            "avx-vnni-int8",
            "avx10",
        ),
        *("cmpccxadd", "fred", "fsrc", "fsrs", "fzrm", "lam", "lkgs", "movrs", "prefetchiti"),
        *("sha512", "sm3", "sm4", "wrmsrns", "msr-imm"),
        *("auto-ibrs", "null-sel-clr-base", "no-nested-data-bp", "lfence-always-serializing"),
        *("perfmon-v2", "prefetchi", "fs-gs-base-ns", "verw-clear", "tsa-l1-no", "tsa-sq-no"),
        *("overflow-recov", "succor", "ibpb-brtype", "sbpb", "srso-no", "srso-user-kernel-no"),
        *("bhi-ctrl", "ddpd-u", "ipred-ctrl", "mcdt-no", "rrsba-ctrl"),
        *("flushbyasid", "lbrv", "vnmi"),
    }
)

# What registers of the local APIC are for, by their names in kvm_trace_symbol_apic (arch/x86/kvm/trace.h),
# and MSRs by their numbers: Intel SDM vol. 3, 12.5.4.1 (the deadline) and table 12-6 (x2APIC).
TIMER, END_OF_INTERRUPT, IPI = "restart of the timer", "end of an interrupt", "IPI"
APIC_REGISTERS = {
    **dict.fromkeys(("APIC_TMICT", "APIC_LVTT", "APIC_TDCR"), TIMER),
    "APIC_EOI": END_OF_INTERRUPT,
    **dict.fromkeys(("APIC_ICR", "APIC_ICR2", "APIC_SELF_IPI"), IPI),
}
MSRS = {
    **dict.fromkeys((0x6E0, 0x832, 0x838, 0x83E), TIMER),
    0x80B: END_OF_INTERRUPT,
    **dict.fromkeys((0x830, 0x83F), IPI),
}
SERIAL_PORT = range(0x3F8, 0x400)  # the first of a PC
PAGE_SIZES = (PAGE, HUGE_PAGE, GIB)
_MSR = re.compile(r"msr_(read|write) ([0-9a-f]+) =")
_REGISTER = re.compile(r"apic_(read|write) (\S+) =")
_PORT = re.compile(r"at (0x[0-9a-f]+) ")
_LEVEL = re.compile(r"level (\d)")


def exit_about(event: str, said: str) -> str:
    """What an exit was for by a tracepoint of KVM (arch/x86/kvm/trace.h, mmu/mmutrace.h)."""
    if event == "kvm_msr" and (found := _MSR.search(said)):
        wrote = found[1] == "write" and MSRS.get(int(found[2], 16))
        return wrote or f"MSR {found[2]}"
    if event == "kvm_apic" and (found := _REGISTER.search(said)):
        wrote = found[1] == "write" and APIC_REGISTERS.get(found[2])
        return wrote or f"APIC {found[2].removeprefix('APIC_')}"
    if event == "kvm_pio" and (found := _PORT.search(said)):
        return "serial port" if int(found[1], 16) in SERIAL_PORT else f"port {found[1]}"
    if (found := _LEVEL.search(said)) and 0 < int(found[1]) <= len(PAGE_SIZES):
        return f"a page of {format_size(PAGE_SIZES[int(found[1]) - 1])} mapped"
    return ""


X86 = Arch(
    name="x86",
    machine="x86_64",
    title="x86-64",
    serial="ttyS",
    trace_clock="x86-tsc",
    cpus=Cpus(
        hardware_ids=hardware_ids,
        clock_khz=clock_khz,
        model=model,
        features=features,
        table="sys/firmware/acpi/tables/APIC",
        table_ids=table_ids,
        what="an x86-64 CPU with a local APIC",
        id_name="APIC id",
        widest_narrow_id=LAPIC_MAX_ID,
        controllers=("xAPIC", "x2APIC"),
        wanted=frozenset({"lm", "apic"}),
        clock=frozenset({"constant_tsc", "nonstop_tsc"}),
        # A guest of KVM takes kvm-clock, which is computed from the TSC (docs/verification-boundary.md).
        clock_sources=frozenset({"tsc", "kvm-clock"}),
        derived=frozenset({"kvm-clock"}),
        virtualisation=frozenset({"svm", "vmx"}),
        # Intel's Hardware Feedback Interface: the table is the package's (SDM vol. 3, 15.6).
        writing=frozenset({"hfi"}),
        cleared_by="clearcpuid",
        kvm_modules=("kvm_amd", "kvm_intel"),
        nested_paging=("kvm_amd/parameters/npt", "kvm_intel/parameters/ept"),
        newer=NEWER_FEATURES,
    ),
    # The setup code, which the version string is in, has at most 64 sectors of 512 bytes behind the first.
    kernel=KernelFile(
        name="bzImage",
        head=0x8200,
        release=kernel_release,
        payload=kernel_payload,
        built="arch/x86/boot/bzImage",
        defaults="x86_64_defconfig",
    ),
    memory=Memory(
        page_sizes=PAGE_SIZES,
        address_limit=1 << 47,  # what 4-level page tables reach in the lower half
        ledger=LEDGER,
        low_windows=tuple(Range(base, 0x20000) for base in (0x20000, 0x40000, 0x60000)),
        owner_features=frozenset({"tdx_host_platform", "tdx_guest"}),
        owner_files={
            "SEV-SNP": "sys/module/kvm_amd/parameters/sev_snp",
            "TDX": "sys/module/kvm_intel/parameters/tdx",
        },
        # Since Linux 5.18 "sme" is there if the kernel uses it (early_detect_mem_encrypt() in
        # arch/x86/kernel/cpu/amd.c). A guest of SEV need not show any: its hypervisor may say that the
        # firmware has turned nothing on.
        encrypted_features=frozenset({"sme"}),
        encrypted_says="Memory Encryption Features active",
        encrypted_by="mem_encrypt",
        config_space_table="sys/firmware/acpi/tables/MCFG",
        node_tables=("sys/firmware/acpi/tables/SRAT", "sys/firmware/acpi/tables/SLIT"),
    ),
    lab=LabMachine(
        program="qemu-system-x86_64",
        machine_type="q35",
        cpu="max",
        iommu={"intel": "intel-iommu", "amd": "amd-iommu"},
        # QEMU: hw/i386/pc_q35.c.
        split_from=0xB000_0000,
        low_ram=2 * GIB,
        high_base=4 * GIB,
        libraries="usr/lib/x86_64-linux-gnu",
        loader="ld-linux-x86-64.so.2",
        debian="amd64",
    ),
    disk=GuestDisk(
        grub_bios="i386-pc",
        grub_efi="x86_64-efi",
        efi_file="EFI/BOOT/BOOTX64.EFI",
        root_type="4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    ),
    exits=Exits(
        events=(
            "kvm/kvm_msr",
            "kvm/kvm_apic",
            "kvm/kvm_pio",
            "kvmmmu/kvm_mmu_spte_requested",
            "kvmmmu/kvm_mmu_set_spte",
        ),
        about=exit_about,
    ),
)
