# SPDX-License-Identifier: GPL-2.0-or-later
"""What a demo saw, as data, and what follows from it. Pure: observations in, verdict out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from multiroot.demo.device import DeviceSeen
from multiroot.phases import Phase
from multiroot.vm.ticks import ClocksLost

CLOCKS_NS = 500_000_000  # of what is said of a guest's clocks: how much a console may differ in its haste


@dataclass(frozen=True)
class RootSeen:
    """A root as it described itself; `memory` is (physical start, bytes, name)."""

    kernel_release: str
    boot_id: str
    cpus: str
    hardware_ids: tuple[int, ...]
    memory: tuple[tuple[int, int, str], ...]
    uptime_s: float


@dataclass(frozen=True)
class GuestSeen:
    """The guest's own account, joined over both roots. Times ns, sizes bytes."""

    boot_id_before: str
    boot_id_after: str
    ticks_before: int
    ticks_after: int
    missing: int
    repeated: int
    ram_checked_bytes: int
    ram_bad_bytes: int
    largest_gap_ns: int
    clocks_lost: ClocksLost

    @property
    def clocks_right(self) -> bool:
        """Whether the guest's clocks lost no more time than the guest stood still. QEMU stops them then."""
        lost = (self.clocks_lost.mono_ns, self.clocks_lost.wall_ns)
        return all(-CLOCKS_NS <= each <= self.largest_gap_ns + CLOCKS_NS for each in lost)

    @property
    def clocks_told(self) -> str:
        """How far the guest's clocks have fallen behind, and what they may."""
        mono, wall = self.clocks_lost.mono_ns / 1e6, self.clocks_lost.wall_ns / 1e6
        return (
            f"monotonic {mono:.1f} ms behind, wall clock {wall:.1f} ms;"
            f" the guest stood {self.largest_gap_ns / 1e6:.1f} ms"
        )


@dataclass(frozen=True)
class VmSeen:
    """One VM's handoff. Times are ns on the TSC clock."""

    name: str
    ram_bytes: int
    ram_bytes_copied: int
    device_state_bytes: int
    stopped_ns: int
    resumed_ns: int
    owner: int
    epoch_before: int
    epoch_after: int
    in_old_root_after: bool
    answers_on_network: bool
    guest: GuestSeen
    device: DeviceSeen | None = None


@dataclass(frozen=True)
class LaunchSeen:
    """Seconds each part of bringing the new root up took; `first_message` and later count from the SIPI."""

    offline: float
    load: float
    start: float
    first_message: float
    userspace: float
    agent_ready: float


@dataclass(frozen=True)
class Check:
    """One claim, whether it held, and what was seen."""

    claim: str
    held: bool
    seen: str


@dataclass(frozen=True)
class Report:
    """Everything a demo run saw."""

    old_root: RootSeen
    old_root_after: RootSeen
    new_root: RootSeen
    new_root_number: int
    resets: int
    boot_retries: int
    guest_boot_retries: int
    launch_retries: int
    vms: tuple[VmSeen, ...]
    launch: LaunchSeen
    phases: tuple[Phase, ...]
    context: dict[str, Any] = field(default_factory=dict)

    def checks(self) -> list[Check]:
        """Every claim of the demo; it succeeded if and only if all held."""
        checks = [
            Check("the machine was never reset", self.resets == 0, f"{self.resets} resets"),
            Check(
                "the old root is still alive",
                self.old_root_after.boot_id == self.old_root.boot_id
                and self.old_root_after.uptime_s > self.old_root.uptime_s,
                f"{self.old_root_after.kernel_release}, up {self.old_root_after.uptime_s:.1f} s",
            ),
            Check(
                "the new root is another kernel",
                bool(self.new_root.boot_id) and self.new_root.boot_id != self.old_root.boot_id,
                f"{self.new_root.kernel_release}, up {self.new_root.uptime_s:.1f} s",
            ),
            Check(
                "the roots share no CPU",
                not set(self.old_root_after.hardware_ids) & set(self.new_root.hardware_ids),
                f"ids {_list(self.old_root_after.hardware_ids)} and {_list(self.new_root.hardware_ids)}",
            ),
        ]
        for vm in self.vms:
            checks += _vm_checks(vm, self.new_root_number)
        return checks

    @property
    def held(self) -> bool:
        """True when every claim held."""
        return all(check.held for check in self.checks())

    def to_json(self) -> dict[str, Any]:
        """The report as plain data; `vm`, `blackout_ms` and `guest` repeat the first entry of `vms`."""
        vms = [_vm_json(vm) for vm in self.vms]
        return {
            "held": self.held,
            "old_root": _root_json(self.old_root_after),
            "new_root": _root_json(self.new_root),
            "machine": {
                "resets": self.resets,
                "boot_retries": self.boot_retries,
                "guest_boot_retries": self.guest_boot_retries,
                "launch_retries": self.launch_retries,
            },
            **vms[0],
            "vms": vms,
            "launch": asdict(self.launch),
            "phases": [_phase_json(phase) for phase in sorted(self.phases, key=lambda p: p.start_ns)],
            "checks": [asdict(check) for check in self.checks()],
            **self.context,
        }


def _device_checks(name: str, device: DeviceSeen) -> list[Check]:
    frames = device.frames
    return [
        Check(
            f"{name}'s card lost and repeated no frame",
            frames.unbroken and frames.first <= device.told_before < frames.last,
            f"numbers {frames.first} to {frames.last}, {device.told_before} the last told of in the old root,"
            f" {frames.lost} lost, {frames.again} repeated",
        ),
        Check(
            f"{name}'s card reaches the same memory as before",
            device.same_translations,
            f"{device.pages} pages translate the same, switched in {device.switch_ns / 1e6:.3f} ms",
        ),
        Check(
            f"{name}'s card worked on while no vCPU ran",
            device.in_blackout > 0,
            f"it took {device.in_blackout} frames in the blackout",
        ),
        Check(
            f"{name}'s card was not reset",
            device.resets == 0 and device.resets_before > 0,
            f"QEMU counts {device.resets_before} resets while it was set up, {device.resets} since",
        ),
        Check(
            f"{name}'s interrupts come in the root that runs it",
            min(device.interrupts) > 0,
            f"{device.interrupts[0]} in the old root, {device.interrupts[1]} in the new one,"
            f" {device.remapped} vectors remapped",
        ),
        Check(
            f"{name}'s driver noticed nothing",
            device.driver_lines == 0,
            f"{device.driver_lines} lines in the guest's log",
        ),
    ]


def _vm_checks(vm: VmSeen, new_root: int) -> list[Check]:
    guest = vm.guest
    return [
        *(_device_checks(vm.name, vm.device) if vm.device else ()),
        Check(
            f"{vm.name} is owned by the new root alone",
            vm.owner == new_root and vm.epoch_after > vm.epoch_before and not vm.in_old_root_after,
            f"root {vm.owner}, epoch {vm.epoch_before} -> {vm.epoch_after}",
        ),
        Check(
            f"{vm.name}'s memory stayed in place",
            vm.ram_bytes_copied == 0 and vm.device_state_bytes > 0,
            f"{vm.ram_bytes_copied} bytes of RAM copied, {vm.device_state_bytes} bytes of device state",
        ),
        Check(
            f"{vm.name}'s guest never rebooted",
            bool(guest.boot_id_before) and guest.boot_id_before == guest.boot_id_after,
            f"boot_id {guest.boot_id_after}",
        ),
        Check(
            f"{vm.name}'s guest lost and repeated no tick",
            guest.missing == 0
            and guest.repeated == 0
            and guest.ticks_before > 0
            and guest.ticks_after > guest.ticks_before,
            f"{guest.ticks_before} ticks before, {guest.ticks_after} after,"
            f" {guest.missing} missing, {guest.repeated} repeated",
        ),
        Check(
            f"{vm.name}'s guest found its memory intact",
            guest.ram_checked_bytes > 0 and guest.ram_bad_bytes == 0,
            f"{guest.ram_checked_bytes >> 20} MiB checked in the new root, {guest.ram_bad_bytes} bytes bad",
        ),
        Check(
            f"{vm.name}'s guest's clocks lost no more time than the guest stood still",
            guest.clocks_right,
            guest.clocks_told,
        ),
        Check(
            f"{vm.name} answers on the network from the new root",
            vm.answers_on_network,
            "pinged from the old root over the link",
        ),
    ]


def _vm_json(vm: VmSeen) -> dict[str, Any]:
    guest = vm.guest
    return {
        "vm": {
            "name": vm.name,
            "ram_bytes": vm.ram_bytes,
            "ram_bytes_copied": vm.ram_bytes_copied,
            "device_state_bytes": vm.device_state_bytes,
            "owner": vm.owner,
            "epoch": vm.epoch_after,
        },
        "blackout_ms": {
            "vmm": round((vm.resumed_ns - vm.stopped_ns) / 1e6, 3),
            "guest": round(guest.largest_gap_ns / 1e6, 3),
        },
        "guest": {
            "boot_id_before": guest.boot_id_before,
            "boot_id_after": guest.boot_id_after,
            "ticks_before": guest.ticks_before,
            "ticks_after": guest.ticks_after,
            "missing": guest.missing,
            "repeated": guest.repeated,
            "ram_checked_bytes": guest.ram_checked_bytes,
            "ram_bad_bytes": guest.ram_bad_bytes,
            "clocks_lost_ms": {
                "monotonic": round(guest.clocks_lost.mono_ns / 1e6, 3),
                "wall": round(guest.clocks_lost.wall_ns / 1e6, 3),
            },
        },
        **({"device": asdict(vm.device)} if vm.device else {}),
    }


def _root_json(root: RootSeen) -> dict[str, Any]:
    return {
        "kernel_release": root.kernel_release,
        "boot_id": root.boot_id,
        "cpus": root.cpus,
        "hardware_ids": list(root.hardware_ids),
        "memory": [{"start": start, "size": size, "name": name} for start, size, name in root.memory],
        "uptime_s": root.uptime_s,
    }


def _phase_json(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "side": phase.side,
        "start_ns": phase.start_ns,
        "duration_ns": phase.duration_ns,
        "blackout": phase.blackout,
        "ok": phase.ok,
        **({"attrs": phase.attrs} if phase.attrs else {}),
    }


def _list(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
