# SPDX-License-Identifier: GPL-2.0-or-later
"""Who this root is, read from its own /proc and /sys."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import MultirootError
from multiroot.plan import iomem
from multiroot.units import parse_cpu_list

ROOT_PARAMETER = "multiroot.root"
FIRST_ROOT = 1
AGENT_SAYS = "multirootd: "  # what the message of an agent begins with that has ended by an error
SERVICES = Path("/usr/lib/multiroot/services")  # stops and starts what the image runs beside the agent


@dataclass(frozen=True)
class Memory:
    """A top-level range of /proc/iomem: physical start and size in bytes."""

    start: int
    size: int
    name: str


@dataclass(frozen=True)
class Identity:
    """What tells this root from every other; fixed for the life of its kernel."""

    root: int
    kernel_release: str
    boot_id: str


def read_identity(proc: Path = Path("/proc")) -> Identity:
    """This root's identity; its number is the kernel parameter multiroot.root, 1 without one.

    Raises MultirootError when that is no number.
    """
    number = parse_command_line((proc / "cmdline").read_text()).get(ROOT_PARAMETER, str(FIRST_ROOT))
    if not re.fullmatch("[1-9][0-9]{0,4}", number):
        raise MultirootError(f"this kernel was started with {ROOT_PARAMETER}={number}", "that is no root")
    return Identity(
        root=int(number),
        kernel_release=os.uname().release,
        boot_id=(proc / "sys/kernel/random/boot_id").read_text().strip(),
    )


def parse_command_line(text: str) -> dict[str, str]:
    """Kernel parameters by name, the last one winning; flags have an empty value."""
    words = (word.partition("=") for word in text.split())
    return {name: value for name, _, value in words}


def online_cpus(sys: Path = Path("/sys")) -> tuple[int, ...]:
    """Logical numbers of the online CPUs."""
    return parse_cpu_list((sys / "devices/system/cpu/online").read_text())


def parse_memory(text: str) -> tuple[Memory, ...]:
    """System RAM and persistent memory at the top level of /proc/iomem's text."""
    return tuple(
        Memory(item.range.base, item.range.size, item.name)
        for item in iomem.parse(text)
        if item.is_ram or item.is_persistent
    )


def pci_functions(sys: Path = Path("/sys")) -> list[str]:
    """Addresses of the PCI functions that this root has."""
    return sorted(entry.name for entry in (sys / "bus/pci/devices").glob("*"))


def uptime_s() -> float:
    """Seconds since this kernel started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
