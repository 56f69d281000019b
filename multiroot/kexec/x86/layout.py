# SPDX-License-Identifier: GPL-2.0-or-later
"""Where everything of a new root lies, as a pure function of its carve and what is loaded into it.

carve +0      boot area: boot_params, command line, ACPI tables, stack, page tables
      +2 MiB  shared area: control page, console ring, link rings (multiroot.ko of the old root)
      +4 MiB  RAM of the new root; the kernel is loaded at +16 MiB, the initrd behind it
low   +0      trampoline page (filled in by multiroot.ko when a CPU is started)
      +4 KiB  PML4: CR3 is loaded from 32-bit code, so it must lie below 4 GiB
      +8 KiB  fake IOAPIC: the MADT has 32 bits for its address
      +12 KiB RAM of the new root, for its own real-mode trampoline
"""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.errors import BadRequestError
from multiroot.kexec.boot import BOOT_AREA_SIZE, CARVE_ALIGNMENT, SHARED_OFFSET
from multiroot.kexec.x86.image import KernelImage
from multiroot.ranges import Range, align_up
from multiroot.units import HUGE_PAGE, KIB, MIB, PAGE, format_size

SHARED_SIZE = 2 * MIB  # MULTIROOT_SHARED_SIZE
RAM_OFFSET = SHARED_OFFSET + SHARED_SIZE
KERNEL_OFFSET = 16 * MIB

# The boot area.
_BOOT_PARAMS = 0x1000
_CMDLINE = 0x2000
_CMDLINE_SIZE = 0x2000
_ACPI = 0x10000
_ACPI_SIZE = 0x10000
_STACK = 0x40000
_STACK_SIZE = 0x10000
_PAGE_TABLES = 0x100000
_PAGE_TABLES_SIZE = BOOT_AREA_SIZE - _PAGE_TABLES

# The low window.
LOW_LIMIT = 0xA0000  # from here on there is VGA memory, not RAM
LOW_RESERVED = 3 * PAGE
LOW_RAM_MIN = 56 * KIB  # the least with which kernels were seen to find room for their trampoline
LOW_SIZE_MIN = LOW_RESERVED + LOW_RAM_MIN

# What a kernel wants beside its own image and the packed initrd until it reaches user space: page
# tables, struct pages, per-CPU areas. Stock Debian kernels came up with less; it is a floor, not a tuning.
HEADROOM = 64 * MIB


@dataclass(frozen=True)
class BootLayout:
    """Every physical address of one new root."""

    carve: Range
    low: Range
    boot_area: Range
    shared: Range
    ram: Range
    low_ram: Range
    trampoline: int
    pml4: int
    boot_params: int
    cmdline: Range
    acpi: Range
    ioapic: int
    stack: Range
    page_tables: Range
    kernel: Range  # where the kernel is loaded and unpacks itself: init_size bytes
    initrd: Range | None

    @property
    def stack_top(self) -> int:
        """Initial stack pointer; stacks grow down."""
        return self.stack.end


def minimum_carve(image: KernelImage, initrd_size: int) -> int:
    """Bytes of the smallest carve, at any aligned base, that `image` comes up in."""
    alignment_slack = max(image.kernel_alignment, CARVE_ALIGNMENT)
    kernel = align_up(image.init_size, HUGE_PAGE)
    packed_and_unpacked = 2 * align_up(initrd_size, HUGE_PAGE)
    return KERNEL_OFFSET + alignment_slack + kernel + packed_and_unpacked + HEADROOM


def least_ram(image: KernelImage, initrd_size: int) -> int:
    """Bytes of RAM from address 0 on without which a virtual machine's firmware starts `image` in vain: it
    unpacks itself to where it prefers to be, before it can say a word.
    """
    packed_and_unpacked = 2 * align_up(initrd_size, HUGE_PAGE)
    return image.pref_address + align_up(image.init_size, HUGE_PAGE) + packed_and_unpacked


def check_carve(carve: Range) -> None:
    """BadRequestError for a carve that no kernel could be loaded into, whatever its size."""
    if carve.base % CARVE_ALIGNMENT or carve.size % CARVE_ALIGNMENT:
        raise BadRequestError(
            f"carve {carve} is not aligned to {format_size(CARVE_ALIGNMENT)}",
            f"use base {align_up(carve.base, CARVE_ALIGNMENT):#x}",
        )
    if carve.base < MIB:
        raise BadRequestError(f"carve {carve} starts below 1 MiB")


def check_low_window(low: Range) -> None:
    """BadRequestError for a low window that is misaligned, too small or not below the VGA hole."""
    if low.base % PAGE or low.size % PAGE:
        raise BadRequestError(f"low window {low} is not page aligned")
    if low.base < 64 * KIB or low.end > LOW_LIMIT:
        raise BadRequestError(f"low window {low} is not between 64 KiB and {LOW_LIMIT // KIB} KiB")
    if low.size < LOW_SIZE_MIN:
        raise BadRequestError(
            f"low window {low} is too small",
            f"{format_size(LOW_SIZE_MIN)} is the least a kernel comes up with",
        )


def lay_out(carve: Range, low: Range, image: KernelImage, initrd_size: int) -> BootLayout:
    """Place `image` and an initrd of `initrd_size` bytes (0: none) into `carve` and `low`.

    Raises BadRequestError when the carve or the low window is malformed, when the kernel can not be loaded
    where the carve is, or when kernel and initrd do not fit.
    """
    check_carve(carve)
    check_low_window(low)
    _check_size(carve, image, initrd_size)
    kernel_base = align_up(carve.base + KERNEL_OFFSET, max(image.kernel_alignment, PAGE))
    if kernel_base < image.pref_address:
        # A relocatable kernel still runs no lower than it prefers (LOAD_PHYSICAL_ADDR).
        kernel_base = align_up(image.pref_address, image.kernel_alignment)
    if carve.end > 1 << 32 and not image.loads_above_4g:
        raise BadRequestError(
            f"kernel {image.release} can not be loaded above 4 GiB", "use a carve below 4 GiB"
        )
    kernel = Range(kernel_base, align_up(image.init_size, PAGE))
    initrd = Range(align_up(kernel.end, HUGE_PAGE), initrd_size) if initrd_size else None
    if (initrd or kernel).end > carve.end:
        raise BadRequestError(
            f"kernel {image.release} runs no lower than {image.pref_address:#x}, "
            f"the carve ends at {carve.end:#x}",
            "use a carve at a higher address",
        )
    return BootLayout(
        carve=carve,
        low=low,
        boot_area=Range(carve.base, BOOT_AREA_SIZE),
        shared=Range(carve.base + SHARED_OFFSET, SHARED_SIZE),
        ram=Range.between(carve.base + RAM_OFFSET, carve.end),
        low_ram=Range.between(low.base + LOW_RESERVED, low.end),
        trampoline=low.base,
        pml4=low.base + PAGE,
        boot_params=carve.base + _BOOT_PARAMS,
        cmdline=Range(carve.base + _CMDLINE, _CMDLINE_SIZE),
        acpi=Range(carve.base + _ACPI, _ACPI_SIZE),
        ioapic=low.base + 2 * PAGE,
        stack=Range(carve.base + _STACK, _STACK_SIZE),
        page_tables=Range(carve.base + _PAGE_TABLES, _PAGE_TABLES_SIZE),
        kernel=kernel,
        initrd=initrd,
    )


def _check_size(carve: Range, image: KernelImage, initrd_size: int) -> None:
    needed = minimum_carve(image, initrd_size)
    if carve.size >= needed:
        return
    if carve.size < minimum_carve(image, 0):
        what = (
            f"kernel image: too large, {image.release} needs {format_size(image.init_size)} to unpack itself"
        )
    else:
        what = f"initrd: too large, {initrd_size} bytes beside kernel {image.release}"
    raise BadRequestError(
        f"{what} and does not come up in a carve of {format_size(carve.size)}",
        f"use a carve of at least {format_size(needed)}",
    )
