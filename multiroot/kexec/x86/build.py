# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything together: what to copy where, and how to enter it. This module is a `kexec.target.Target`."""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.errors import BadRequestError
from multiroot.kexec.boot import BootPlan, MemoryEntry, RootSpec, Segment
from multiroot.kexec.x86 import acpi, bootparams, cmdline, e820, image, layout, pagetables
from multiroot.kexec.x86.acpi import MAX_APIC_ID, UART_PORTS_AT
from multiroot.kexec.x86.cmdline import reusable
from multiroot.kexec.x86.image import ENTRY_64, KernelImage
from multiroot.kexec.x86.layout import BootLayout, check_low_window, least_ram, minimum_carve
from multiroot.kexec.x86.pagetables import ADDRESS_LIMIT
from multiroot.ranges import Range
from multiroot.units import PAGE

_MAX_ROOT = 0xFFFF  # an owner word has 16 bits for it
_MAX_KHZ = 0xFFFFFFFF  # tsc_early_khz= is read as an unsigned int


@dataclass(frozen=True)
class X86BootPlan(BootPlan):
    """A boot plan, and where everything in it lies."""

    layout: BootLayout


def read_image(data: bytes) -> KernelImage:
    """Parse and check a kernel file. Raises BadRequestError."""
    return image.parse(data)


def build(kernel: bytes, initrd: bytes, user_cmdline: str, spec: RootSpec) -> X86BootPlan:
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
            x2apic=spec.wide_ids,
            hz=spec.hz,
            uart=spec.uart,
            cleared=spec.cleared,
            user=user_cmdline,
        ),
        min(parsed.cmdline_size, where.cmdline.size - 1),
    )
    return X86BootPlan(
        segments=_segments(parsed, initrd, line, spec, where, memory),
        trampoline=where.trampoline,
        page_table=where.pml4,
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
    memory: tuple[MemoryEntry, ...],
) -> tuple[Segment, ...]:
    """Sorted by address; none overlaps another, the shared area or the trampoline page."""
    hardware = acpi.Hardware(
        apic_ids=spec.hardware_ids,
        machine_boot_apic_id=spec.boot_hardware_id,
        ioapic=where.ioapic,
        pmem=spec.pmem,
        foreign_bsp=acpi.foreign_bsp(parsed.version),
        root=spec.root,
        ledger_cpus=spec.ledger_cpus,
        uart=spec.uart,
        later_apic_ids=spec.later_hardware_ids,
        node_tables=spec.node_tables,
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
    """What the command line and the ACPI tables can say."""
    ids = (*spec.hardware_ids, *spec.later_hardware_ids)
    if not spec.hardware_ids or len(set(ids)) != len(ids):
        raise BadRequestError(f"a root needs at least one CPU and each only once, not APIC ids {ids}")
    if not 0 <= min(ids) <= max(ids) <= MAX_APIC_ID:
        raise BadRequestError(f"APIC ids {min(ids)} to {max(ids)} are too many", f"0 to {MAX_APIC_ID} work")
    if not 1 <= spec.root <= _MAX_ROOT or not 1 <= spec.tsc_khz <= _MAX_KHZ or spec.hz < 0:
        raise BadRequestError(
            f"root number {spec.root}, TSC frequency {spec.tsc_khz} kHz or CONFIG_HZ {spec.hz} makes no sense"
        )
    if spec.uart not in range(len(UART_PORTS_AT)):
        raise BadRequestError(f"there is no serial port {spec.uart} for a root", "0 and 1 are known")
    if not 0 <= spec.ledger_cpus < ADDRESS_LIMIT:
        raise BadRequestError(f"the ledger cannot be at {spec.ledger_cpus:#x}")


__all__ = ["X86BootPlan", "build", "check_low_window", "least_ram", "minimum_carve", "read_image", "reusable"]
