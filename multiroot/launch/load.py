# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot plan -> device: register the carve, grant CPUs, write segments, start; and all of it back.

The caller holds the device's claim. Undoing functions are idempotent: they look at what is there first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from multiroot.device.handle import Device
from multiroot.device.uapi import CpuState, Started
from multiroot.errors import BadRequestError, MultirootError
from multiroot.launch import guard

if TYPE_CHECKING:
    from multiroot.kexec.boot import BootPlan
    from multiroot.plan.planner import Plan

START_TIMEOUT_MS = 5000


@dataclass(frozen=True)
class Entry:
    """How to enter what was loaded: the registers of struct multiroot_cpu_start, physical addresses."""

    trampoline: int
    page_table: int
    stack: int
    entry: int
    boot_params: int

    @classmethod
    def of(cls, boot: BootPlan) -> Entry:
        return cls(boot.trampoline, boot.page_table, boot.stack, boot.entry, boot.boot_params)

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Entry:
        """BadRequestError when `data` is not what `to_dict` made."""
        try:
            return cls(**{name: int(value) for name, value in data.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise BadRequestError(f"not an entry: {error}") from error


def carve(device: Device, plan: Plan) -> None:
    """Register the plan's carve. Its memory blocks must be offline by now."""
    device.carve(
        plan.carve.base,
        plan.carve.size,
        low_base=plan.low.base,
        low_size=plan.low.size,
        shared=plan.shared,
    )


def grant(device: Device, plan: Plan) -> None:
    """Grant the plan's CPUs, which are offline by now; on failure those granted already come back."""
    granted: list[int] = []
    try:
        for cpu in plan.cpus:
            granted.append(device.grant(cpu.number).cpu)
    except MultirootError:
        for number in granted:
            device.reclaim(number)
        raise


def write(device: Device, boot: BootPlan) -> int:
    """Copy all segments to where they belong; returns how many bytes."""
    for segment in boot.segments:
        device.write_segment(segment.phys, segment.data)
    return sum(len(segment.data) for segment in boot.segments)


def start(device: Device, plan: Plan, entry: Entry, timeout_ms: int = START_TIMEOUT_MS) -> Started:
    """Send the plan's first CPU to the kernel; the others it starts on its own.

    Raises WaitTimeoutError when the CPU does not reach the entry point within `timeout_ms`.
    """
    return device.start(plan.cpus[0].number, **entry.to_dict(), timeout_ms=timeout_ms)


def reclaim(device: Device, plan: Plan, *, force: bool = False, hint: str = "") -> tuple[str, ...]:
    """Take the plan's CPUs back, whatever they run; returns the names of the VMs that were lost by it.

    Raises OwnsVmsError with `hint`, having done nothing, when they run a root that owns VMs, unless `force`.
    """
    granted = [
        cpu
        for cpu in (device.cpu(planned.number) for planned in plan.cpus)
        if cpu.state in (CpuState.GRANTED, CpuState.STARTED)
    ]
    if not granted:
        return ()
    with guard.ending_child(device, granted[0].root, force=force, hint=hint) as lost:
        # Secondary ones first: the first ends the root.
        for cpu in reversed(granted):
            device.reclaim(cpu.cpu)
    return lost


def uncarve(device: Device) -> None:
    """Let the carve go; ConflictError while CPUs are granted or somebody maps its control page."""
    if device.info().carved:
        device.uncarve()
