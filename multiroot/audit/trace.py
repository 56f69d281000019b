# SPDX-License-Identifier: GPL-2.0-or-later
"""What the traces say, line by line: QEMU's memory-region trace, and a kernel's trace of its MSR writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multiroot.errors import MultirootError

EVENTS = ("memory_region_ops_read", "memory_region_ops_write")
DEVICE = -1  # QEMU's own threads: a device, not a CPU

# QEMU: system/trace-events. Values are printed as %x, of whatever width. A name holds no quote: a line that
# was cut behind one inside a name would otherwise look whole.
_LINE = re.compile(
    rb"memory_region_ops_(read|write) cpu (-?\d+) mr 0x[0-9a-f]+ addr 0x([0-9a-f]+)"
    rb" value 0x([0-9a-f]+) size (\d+) name '([^']*)'"
)
# Linux: arch/x86/include/asm/msr-trace.h, behind the columns of Documentation/trace/ftrace.rst.
_MSR = re.compile(r"\[(\d+)\] .*: write_msr: ([0-9a-f]+), value ([0-9a-f]+)(?: #GP)?$")


class TraceError(MultirootError):
    """A trace that does not read as it should: nothing can be said of what it left out."""


@dataclass(frozen=True, slots=True)
class Access:
    """One access to a device. `cpu` is QEMU's number (the APIC id in lab machines) or DEVICE; `at` is a port
    or a physical address; `region` is QEMU's name for the device.
    """

    cpu: int
    write: bool
    at: int
    value: int
    size: int
    region: str


@dataclass(frozen=True, slots=True)
class MsrWrite:
    """One write to an MSR; `cpu` is the number in the kernel that traced it."""

    cpu: int
    msr: int
    value: int


def parse(line: bytes) -> Access | None:
    """The access on a line, None for lines of other events. TraceError when one of ours can't be read."""
    match = _LINE.fullmatch(line)
    if match is None:
        if line.startswith(b"memory_region_ops_"):
            raise TraceError(f"a line of QEMU's trace cannot be read: {line[:200]!r}")
        return None
    kind, cpu, at, value, size, region = match.groups()
    return Access(
        int(cpu), kind == b"write", int(at, 16), int(value, 16), int(size), region.decode(errors="replace")
    )


def parse_msrs(text: str) -> list[MsrWrite]:
    """The writes in a kernel's trace, oldest first. TraceError when the kernel says it lost some."""
    if "LOST" in text:
        raise TraceError("the kernel's MSR trace lost events", "give it a larger trace_buf_size=")
    found = []
    for line in text.splitlines():
        if match := _MSR.search(line):
            found.append(MsrWrite(int(match[1]), int(match[2], 16), int(match[3], 16)))
        elif "write_msr" in line and not line.startswith("#"):
            raise TraceError(f"a line of the kernel's MSR trace cannot be read: {line[:200]!r}")
    return found
