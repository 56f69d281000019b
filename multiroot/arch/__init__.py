# SPDX-License-Identifier: GPL-2.0-or-later
"""The architecture seam: everything that depends on the processor, asked for in one place.

`arch.current()` is the record (`arch.arch.Arch`) of the machine this runs on. Today there is one record, that
of x86-64 (`arch.x86`). The planner, `launch`, the lab and the agent ask it for hardware ids, the low windows,
the format of a kernel file, QEMU's program and so on.

How a kernel is entered is more than a record can hold: `kexec.target` has the interface of that, and
`kexec/x86/` implements it. In messages, plans and JSON a CPU is known by its hardware id, which on x86 is its
APIC id.

A port brings a record here and folders of its own in `kexec/`, `csrc/kmod/core/` and, where its machine types
need one, `vm/qemu/`. `MAY_SAY` lists the folders and modules that may use words of one architecture; a unit
test fails for any other module that does.
"""

from __future__ import annotations

import functools
import platform

from multiroot.arch.arch import Arch
from multiroot.arch.x86 import X86
from multiroot.errors import MultirootError

ARCHES = (X86,)

# Folders and modules below multiroot/ that may say words of one architecture, and why.
MAY_SAY = {
    "arch": "the records",
    "kexec/x86": "how a kernel for x86 is entered",
    "kexec/target.py": "imports the implementations",
    "vmcore/x86": "page tables and stacks of kernels for x86",
    "vmcore/target.py": "imports the implementations",
    "vm/qemu": "machine types of QEMU, and what their devices hold",
    "device": "the kernel module's border, field by field",
    "passthrough": "the ACPI tables of the IOMMU",
    "audit": "judges the state of a PC",
    "cli/audit.py": "prints what it judged",
    "faults/stop_cpus.py": "sends INIT by hand",
    "verdict/taint.py": "names of flags, as kernels print them",
}


def of(machine: str) -> Arch:
    """The record for what `uname -m` says. Raises MultirootError when there is none."""
    for known in ARCHES:
        if known.machine == machine:
            return known
    there = ", ".join(known.machine for known in ARCHES)
    raise MultirootError(f"this machine's architecture, {machine}, is not supported", f"supported: {there}")


@functools.cache
def current() -> Arch:
    """The record of the machine this runs on."""
    return of(platform.machine())


__all__ = ["ARCHES", "MAY_SAY", "Arch", "current", "of"]
