# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU command line of a VM; pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from multiroot.arena.allocator import Extent
from multiroot.vm.definition import VmDefinition, machine_kind

# State is saved, sent and loaded while the guest stands still. So: no devices that no guest here needs, no
# ACPI hot-plug registers for 256 buses, and virtio's legacy interface, because for the modern one QEMU saves
# all 1024 queues a device could have (45 kB, field by field). ROMs are sent too, so the smallest firmware
# that starts a kernel given directly. (With its usual one microvm starts no kernel in 2 GiB.)
# suppress-vmdesc also matters for safety: nothing may follow the end mark of the stream, see docs/handoff.md.
_MACHINE_OPTIONS = {
    "q35": "firmware=qboot.rom,suppress-vmdesc=on,hpet=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off",
    "microvm": "firmware=qboot.rom,suppress-vmdesc=on,acpi=on",
}
_MACHINE_WORDS = {
    "q35": ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"],
    "microvm": [],
}
CARD_SLOT = 1  # on q35's bus 0
_CARDS = {
    "q35": f"virtio-net-pci,addr={CARD_SLOT:#x},disable-modern=on,disable-legacy=off,romfile=",
    "microvm": "virtio-net-device",
}
RAM_BLOCK = "ram"


@dataclass(frozen=True)
class Qemu:
    """Which QEMU, and how it runs guests. `accel` other than kvm is for machines that have no KVM at all."""

    program: Path = Path("/usr/bin/qemu-system-x86_64")
    accel: str = "kvm"

    @property
    def cpu(self) -> str:
        return "host" if self.accel == "kvm" else "max"


@dataclass(frozen=True)
class Descriptors:
    """What QEMU inherits: a listening socket for QMP, a connected one for the serial port, a tap or None, and
    for a QEMU that waits for a device state a connected socket for QMP.
    """

    qmp: int
    serial: int
    tap: int | None = None
    monitor: int | None = None

    def all(self) -> tuple[int, ...]:
        return tuple(fd for fd in (self.qmp, self.serial, self.tap, self.monitor) if fd is not None)


@dataclass(frozen=True)
class Paths:
    """Where the arena and the guest's kernel and initrd are."""

    arena: Path
    kernel: Path
    initrd: Path


def guest_paths(arena: Path, guests: Path, guest: str) -> Paths:
    """The files of guest image `guest` below the folder `guests`."""
    folder = guests / guest
    return Paths(arena, folder / "vmlinuz", folder / "initrd")


def guest_command_line(definition: VmDefinition) -> str:
    """The guest kernel's command line; guest image NAME or NAME-VARIANT takes its address as NAME.ip=."""
    words = ["console=ttyS0", "quiet"]
    if definition.address:
        words.append(f"{definition.guest.partition('-')[0]}.ip={definition.address}")
    if definition.append:
        words.append(definition.append)
    return " ".join(words)


def command(
    qemu: Qemu,
    definition: VmDefinition,
    extent: Extent,
    paths: Paths,
    descriptors: Descriptors,
    *,
    incoming: bool = False,
    device: str = "",
) -> list[str]:
    """The whole argument vector; `device` is the address in this root of the PCI device that the VM owns.

    With `incoming` QEMU waits for a device state and then stays stopped (-S): the guest goes on when, and
    only when, the owner word in the arena is ours.
    """
    size = definition.ram_bytes
    words = [
        os.fspath(qemu.program), "-name", f"guest={definition.name}",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", machine(definition.machine), "-accel", qemu.accel, "-cpu", qemu.cpu,
        *_MACHINE_WORDS[machine_kind(definition.machine)],
        "-smp", str(definition.cpus), "-m", f"size={size}B",
        "-object", _memory(paths.arena, extent),
        "-kernel", os.fspath(paths.kernel), "-initrd", os.fspath(paths.initrd),
        "-append", guest_command_line(definition),
        "-chardev", f"socket,id=qmp,fd={descriptors.qmp},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=serial,fd={descriptors.serial}",
        "-serial", "chardev:serial",
    ]  # fmt: skip
    if descriptors.tap is not None:
        words += [
            "-netdev", f"tap,id=net,fd={descriptors.tap}",
            "-device", f"{_CARDS[machine_kind(definition.machine)]},netdev=net,mac={definition.mac}",
        ]  # fmt: skip
    if device:
        # Without its ROM, which QEMU would read from the device.
        words += [
            "-device", "pcie-root-port,id=owned,chassis=1",
            "-device", f"vfio-pci,host={device},bus=owned,rombar=0,enable-migration=on",
        ]  # fmt: skip
    if descriptors.monitor is not None:
        words += [
            "-chardev",
            f"socket,id=monitor,fd={descriptors.monitor}",
            "-mon",
            "chardev=monitor,mode=control",
        ]
    if incoming:
        words += ["-S", "-incoming", "defer"]
    return words


def machine(text: str) -> str:
    """QEMU's -machine value for a definition's machine; the definition's own options win."""
    options = text.partition(",")[2]
    parts = [machine_kind(text), _MACHINE_OPTIONS[machine_kind(text)], f"memory-backend={RAM_BLOCK}"]
    return ",".join([*parts, options] if options else parts)


def _memory(arena: Path, extent: Extent) -> str:
    """Guest RAM, shared with whoever else maps this extent: that is what makes x-ignore-shared skip it."""
    return (
        f"memory-backend-file,id={RAM_BLOCK},size={extent.size}B,mem-path={arena},"
        f"offset={extent.offset}B,align=2M,share=on"
    )
