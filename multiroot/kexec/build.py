# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything together: what to copy where, and how to enter it."""

from __future__ import annotations

from dataclasses import dataclass, field

from multiroot.errors import BadRequestError
from multiroot.kexec.ranges import Range
from multiroot.kexec.x86 import acpi, bootparams, cmdline, e820, image, layout, pagetables
from multiroot.kexec.x86.e820 import E820Entry
from multiroot.kexec.x86.image import ENTRY_64, KernelImage
from multiroot.kexec.x86.layout import BootLayout
from multiroot.units import KIB, PAGE

LEDGER = Range(64 * KIB, 64 * KIB)


@dataclass(frozen=True)
class RootSpec:
    """The root to be: its share of the machine and what it must know about the old root.

    `apic_ids`: its CPUs, the one to start it on first. `reserved`: ranges (and what they are) that
    it must see as reserved. `hz`: the new kernel's CONFIG_HZ, 0 when unknown. `later_apic_ids`: CPUs that
    it may take over one day; `ledger_cpus`: physical address of the ledger's table of CPUs. `uart`: its
    serial port, 0 or 1.
    """

    root: int
    carve: Range
    low: Range
    apic_ids: tuple[int, ...]
    machine_boot_apic_id: int
    tsc_khz: int
    x2apic: bool
    pmem: tuple[Range, ...] = ()
    hz: int = 0
    later_apic_ids: tuple[int, ...] = ()
    ledger_cpus: int = 0
    uart: int = 0
    reserved: tuple[tuple[Range, str], ...] = field(default=((LEDGER, "ledger"),))


@dataclass(frozen=True)
class Segment:
    """`data` for physical address `phys`, which is page aligned; `what` is for people."""

    phys: int
    data: bytes = field(repr=False)
    what: str

    @property
    def range(self) -> Range:
        return Range(self.phys, len(self.data))


@dataclass(frozen=True)
class BootPlan:
    """kexec_load(2)'s segments and entry, and the registers of struct multiroot_cpu_start."""

    segments: tuple[Segment, ...]
    trampoline: int
    cr3: int
    stack: int
    entry: int
    boot_params: int
    release: str
    command_line: str
    memory: tuple[E820Entry, ...]
    layout: BootLayout


def build(kernel: bytes, initrd: bytes, user_cmdline: str, spec: RootSpec) -> BootPlan:
    """Make the boot plan of a new root.

    `initrd` may be empty. Raises BadRequestError for an image, a carve, a low window or a command
    line that can not be used, ConflictError when the ranges of `spec` overlap.
    """
    parsed = image.parse(kernel)
    _check_spec(spec)
    where = layout.lay_out(spec.carve, spec.low, parsed, len(initrd))
    memory = e820.memory_map(where, spec.pmem, spec.reserved)
    line = cmdline.assemble(
        cmdline.CommandLine(
            root=spec.root,
            shared=where.shared.base,
            tsc_khz=spec.tsc_khz,
            x2apic=spec.x2apic,
            hz=spec.hz,
            uart=spec.uart,
            user=user_cmdline,
        ),
        min(parsed.cmdline_size, where.cmdline.size - 1),
    )
    return BootPlan(
        segments=_segments(parsed, initrd, line, spec, where, memory),
        trampoline=where.trampoline,
        cr3=where.pml4,
        stack=where.stack_top,
        entry=where.kernel.base + ENTRY_64,
        boot_params=where.boot_params,
        release=parsed.release,
        command_line=line,
        memory=memory,
        layout=where,
    )


def _segments(
    parsed: KernelImage,
    initrd: bytes,
    line: str,
    spec: RootSpec,
    where: BootLayout,
    memory: tuple[E820Entry, ...],
) -> tuple[Segment, ...]:
    """Sorted by address; none overlaps another, the shared area or the trampoline page."""
    hardware = acpi.Hardware(
        apic_ids=spec.apic_ids,
        machine_boot_apic_id=spec.machine_boot_apic_id,
        ioapic=where.ioapic,
        pmem=spec.pmem,
        foreign_bsp=acpi.foreign_bsp(parsed.version),
        root=spec.root,
        ledger_cpus=spec.ledger_cpus,
        uart=spec.uart,
        later_apic_ids=spec.later_apic_ids,
    )
    params = bootparams.encode(
        parsed, cmdline=where.cmdline.base, initrd=where.initrd, rsdp=where.acpi.base, memory=memory
    )
    below_4g = Range(0, 1 << 32)
    tables = pagetables.identity_map((below_4g, _mapped_part(where)), where.page_tables)
    segments = [
        Segment(where.pml4, tables.pml4, "PML4"),
        Segment(where.boot_params, params, "boot_params"),
        Segment(where.cmdline.base, line.encode("ascii") + b"\0", "command line"),
        Segment(where.acpi.base, acpi.build(hardware, where.acpi), "ACPI tables"),
        Segment(where.ioapic, bytes(PAGE), "fake IOAPIC"),
        Segment(tables.tables_base, tables.tables, "page tables"),
        Segment(where.kernel.base, parsed.payload, "kernel"),
    ]
    if where.initrd:
        segments.append(Segment(where.initrd.base, initrd, "initrd"))
    return tuple(sorted(segments, key=lambda segment: segment.phys))


def _mapped_part(where: BootLayout) -> Range:
    """The carve, or as much of a huge one as the page tables reach; the kernel maps the rest on its own."""
    reach = pagetables.reach(where.page_tables)
    loaded = where.initrd or where.kernel
    if loaded.end - where.carve.base > reach:
        raise BadRequestError("kernel and initrd are too large to be mapped", "use a smaller initrd")
    return Range(where.carve.base, min(where.carve.size, reach))


def _check_spec(spec: RootSpec) -> None:
    if not spec.apic_ids or len(set(spec.apic_ids)) != len(spec.apic_ids):
        raise BadRequestError(
            f"a root needs at least one CPU and each only once, not APIC ids {spec.apic_ids}"
        )
    if spec.root < 1 or spec.tsc_khz < 1:
        raise BadRequestError(f"root number {spec.root} or TSC frequency {spec.tsc_khz} kHz makes no sense")
