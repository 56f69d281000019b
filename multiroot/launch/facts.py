# SPDX-License-Identifier: GPL-2.0-or-later
"""What this root knows about the machine, from /dev/multiroot and /proc: the base of every plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch
from multiroot.device.handle import Device
from multiroot.device.uapi import LEDGER_CPUS_OFFSET
from multiroot.errors import MultirootError
from multiroot.kexec.boot import RootSpec
from multiroot.plan.collect import ProbedCpu, collect
from multiroot.plan.inventory import FirmwareRange, Inventory
from multiroot.plan.planner import Plan
from multiroot.ranges import Range

FIRST_ROOT = 1


@dataclass(frozen=True)
class Facts:
    """What plans are made from.

    `root` is this root's number, `next_root` what a new one would get. `boot_hardware_id` is the CPU that the
    machine started on. `tsc_khz` is as the kernel uses it. With `wide_ids` the interrupt controller is in its
    wide mode. `hardware_ids` are those of all CPUs of the machine; `ledger_cpus` is where the ledger has its
    table of them. `cleared` are CPU features that all roots do without. `uart` is a serial port for a new
    root. `node_tables` are the firmware's tables of nodes.
    """

    root: int
    next_root: int
    boot_hardware_id: int
    tsc_khz: int
    wide_ids: bool
    hardware_ids: tuple[int, ...] = ()
    ledger_cpus: int = 0
    cleared: tuple[str, ...] = ()
    uart: int = 0
    node_tables: tuple[bytes, ...] = ()


def facts_of(device: Device) -> Facts:
    """What the module says."""
    info = device.info()
    ledger = device.ledger()
    command_line = Path("/proc/cmdline").read_text()
    return Facts(
        root=info.root,
        next_root=ledger.next_root,
        boot_hardware_id=info.boot_hardware_id,
        tsc_khz=info.tsc_khz,
        wide_ids=info.wide_ids,
        hardware_ids=tuple(sorted(ledger.cpus)),
        ledger_cpus=info.ledger + LEDGER_CPUS_OFFSET,
        cleared=arch.current().cpus.cleared(command_line),
        uart=free_uart(command_line),
        node_tables=node_tables(),
    )


def node_tables(top: Path = Path("/")) -> tuple[bytes, ...]:
    """The firmware's tables of nodes; a later root has those that its parent had."""
    files = [top / name for name in arch.current().memory.node_tables]
    return tuple(file.read_bytes() for file in files if file.exists())


def free_uart(command_line: str) -> int:
    """The serial port, 0 or 1, that the root with this command line has not for its console."""
    return 1 if re.search(rf"\bconsole={arch.current().serial}0\b", command_line) else 0


def facts_without_module(top: Path = Path("/")) -> Facts:
    """Good enough to show a plan, not to carry it out: the TSC frequency is the clock rate of now."""
    text = (top / "proc/cpuinfo").read_text()
    cpus = arch.current().cpus
    ids, khz = cpus.hardware_ids(text), cpus.clock_khz(text)
    if not ids or not khz:
        raise MultirootError(f"/proc/cpuinfo names no {cpus.id_name} or no clock rate", "load multiroot.ko")
    return Facts(FIRST_ROOT, FIRST_ROOT + 1, ids[min(ids)], khz, cpus.are_wide(text))


def take_inventory(device: Device | None, facts: Facts, top: Path = Path("/")) -> Inventory:
    """The inventory; without the module, hardware ids of offline CPUs stay unknown."""

    def probe(number: int) -> ProbedCpu:
        assert device
        cpu = device.cpu(number)
        return ProbedCpu(cpu.hardware_id, cpu.root)

    return collect(
        top,
        probe=probe if device else None,
        root=facts.root,
        boot_hardware_id=facts.boot_hardware_id,
        firmware=_first_map(device) if device else None,
    )


def _first_map(device: Device) -> tuple[FirmwareRange, ...]:
    """The machine's memory map as its first root saw it."""
    return tuple(
        FirmwareRange(Range(entry.addr, entry.size), "System RAM" if entry.is_ram else "Reserved")
        for entry in sorted(device.ledger().first_map, key=lambda entry: entry.addr)
    )


def root_spec(plan: Plan, facts: Facts, hz: int = 0) -> RootSpec:
    """The root that `plan` makes; `hz` is its kernel's CONFIG_HZ, 0 when unknown."""
    return RootSpec(
        root=facts.next_root,
        carve=plan.carve,
        low=plan.low,
        hardware_ids=plan.hardware_ids,
        boot_hardware_id=facts.boot_hardware_id,
        tsc_khz=facts.tsc_khz,
        wide_ids=facts.wide_ids,
        reserved=((arch.current().memory.ledger, "ledger"),),
        pmem=plan.pmem,
        hz=hz,
        later_hardware_ids=tuple(each for each in facts.hardware_ids if each not in plan.hardware_ids),
        ledger_cpus=facts.ledger_cpus,
        cleared=facts.cleared,
        uart=facts.uart,
        node_tables=facts.node_tables,
    )
