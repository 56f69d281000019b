# SPDX-License-Identifier: GPL-2.0-or-later
"""What this root knows about the machine, from /dev/multiroot and /proc: the base of every plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from multiroot.device.handle import Device
from multiroot.device.uapi import LEDGER_CPUS_OFFSET
from multiroot.errors import MultirootError
from multiroot.kexec.build import RootSpec
from multiroot.kexec.ranges import Range
from multiroot.plan.collect import ProbedCpu, collect, parse_apic_ids
from multiroot.plan.inventory import FirmwareRange, Inventory
from multiroot.plan.planner import Plan

FIRST_ROOT = 1
_TYPE_RAM = 1  # of e820


@dataclass(frozen=True)
class Facts:
    """`root` is this root's number, `next_root` what a new one would get; `tsc_khz` as the kernel uses it.

    `apic_ids` are the machine's, of all roots' CPUs; `ledger_cpus` is where the ledger has its table of them,
    `uart` a serial port for a new root.
    """

    root: int
    next_root: int
    boot_apic_id: int
    tsc_khz: int
    x2apic: bool
    apic_ids: tuple[int, ...] = ()
    ledger_cpus: int = 0
    uart: int = 0


def facts_of(device: Device) -> Facts:
    """What the module says."""
    info = device.info()
    ledger = device.ledger()
    return Facts(
        root=info.root,
        next_root=ledger.next_root,
        boot_apic_id=info.boot_hardware_id,
        tsc_khz=info.tsc_khz,
        x2apic=info.x2apic,
        apic_ids=tuple(sorted(ledger.cpus)),
        ledger_cpus=info.ledger + LEDGER_CPUS_OFFSET,
        uart=free_uart(Path("/proc/cmdline").read_text()),
    )


def free_uart(command_line: str) -> int:
    """The serial port, 0 or 1, that the root with this command line has not for its console."""
    return 1 if re.search(r"\bconsole=ttyS0\b", command_line) else 0


def facts_without_module(top: Path = Path("/")) -> Facts:
    """Good enough to show a plan, not to carry it out: the TSC frequency is the clock rate of now."""
    text = (top / "proc/cpuinfo").read_text()
    mhz = re.search(r"^cpu MHz\s*: (\d+)", text, re.MULTILINE)
    ids = parse_apic_ids(text)
    if not mhz or not ids:
        raise MultirootError("/proc/cpuinfo names no APIC ids or clock rate", "this needs an x86 machine")
    x2apic = "x2apic" in text and max(ids.values()) > 254
    return Facts(FIRST_ROOT, FIRST_ROOT + 1, ids[min(ids)], int(mhz[1]) * 1000, x2apic)


def take_inventory(device: Device | None, facts: Facts, top: Path = Path("/")) -> Inventory:
    """The inventory; without the module, APIC ids of offline CPUs stay unknown."""

    def probe(number: int) -> ProbedCpu:
        assert device
        cpu = device.cpu(number)
        return ProbedCpu(cpu.hardware_id, cpu.root)

    return collect(
        top,
        probe=probe if device else None,
        root=facts.root,
        boot_apic_id=facts.boot_apic_id,
        firmware=_first_map(device) if device else None,
    )


def _first_map(device: Device) -> tuple[FirmwareRange, ...]:
    """The machine's memory map as its first root saw it."""
    return tuple(
        FirmwareRange(Range(entry.addr, entry.size), "System RAM" if entry.type == _TYPE_RAM else "Reserved")
        for entry in sorted(device.ledger().e820, key=lambda entry: entry.addr)
    )


def root_spec(plan: Plan, facts: Facts, hz: int = 0) -> RootSpec:
    """The root that `plan` makes; `hz` is its kernel's CONFIG_HZ, 0 when unknown."""
    return RootSpec(
        root=facts.next_root,
        carve=plan.carve,
        low=plan.low,
        apic_ids=plan.apic_ids,
        machine_boot_apic_id=facts.boot_apic_id,
        tsc_khz=facts.tsc_khz,
        x2apic=facts.x2apic,
        pmem=plan.pmem,
        hz=hz,
        later_apic_ids=tuple(apic_id for apic_id in facts.apic_ids if apic_id not in plan.apic_ids),
        ledger_cpus=facts.ledger_cpus,
        uart=facts.uart,
    )
