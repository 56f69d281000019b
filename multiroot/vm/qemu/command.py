# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU command line of a VM; pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from multiroot.arena.allocator import Extent
from multiroot.vm import cpu_model
from multiroot.vm.definition import DIRECT, SEABIOS, machine_kind
from multiroot.vm.disk import Disk
from multiroot.vm.guests import guest_command_line
from multiroot.vm.qemu.options import Value, option
from multiroot.vm.vmm import VmmSetup

# State is saved, sent and loaded while the guest stands still. So: no devices that no guest here needs, no
# ACPI hot-plug registers for 256 buses, and virtio's legacy interface, because for the modern one QEMU saves
# all 1024 queues a device could have (45 kB, field by field). ROMs are sent too, so the smallest firmware
# that starts a kernel given directly. (With its usual one microvm starts no kernel in 2 GiB.)
# suppress-vmdesc also matters for safety: nothing may follow the end mark of the stream, see docs/handoff.md.
_MACHINE_OPTIONS: dict[str, dict[str, Value]] = {
    "q35": {
        "suppress-vmdesc": True,
        "hpet": False,
        "vmport": False,
        "smm": False,
        "sata": False,
        "smbus": False,
        "i8042": False,
    },
    "microvm": {"suppress-vmdesc": True, "acpi": True},
}
# What a guest does after a panic is its own affair. That it did is told by a device that has no state.
_Q35_GLOBAL = option("", {"ICH9-LPC.acpi-pci-hotplug-with-bridge-support": False})
_MACHINE_WORDS = {"q35": ["-device", "pvpanic", "-global", _Q35_GLOBAL], "microvm": []}
CARD_SLOT = 1  # on q35's bus 0
_CARDS: dict[str, tuple[str, dict[str, Value]]] = {
    "q35": (
        "virtio-net-pci",
        {"addr": f"{CARD_SLOT:#x}", "disable-modern": True, "disable-legacy": False, "romfile": ""},
    ),
    "microvm": ("virtio-net-device", {}),
}
_FIRMWARE = {DIRECT: "qboot.rom", SEABIOS: "bios-256k.bin"}
DISK_SLOT = 0x10
SEED_SLOT = 0x1C
_LEGACY: dict[str, Value] = {"disable-modern": True, "disable-legacy": False}
# SeaBIOS finds no disk behind the legacy interface of this QEMU.
_MODERN: dict[str, Value] = {"disable-legacy": True}
_QUEUE: dict[str, Value] = {"queue-size": 128, "num-queues": 1}
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
    """What QEMU inherits: a listening socket for QMP, a connected one for the serial port, open taps, and for
    a QEMU that waits for a device state a connected socket for a second QMP monitor.
    """

    qmp: int
    serial: int
    taps: tuple[int, ...] = ()
    monitor: int | None = None

    def all(self) -> tuple[int, ...]:
        return tuple(fd for fd in (self.qmp, self.serial, *self.taps, self.monitor) if fd is not None)


@dataclass(frozen=True)
class Incoming:
    """How QEMU waits for a device state: `sources` are values of -incoming.

    With `stopped` it stays stopped when it has loaded the state (-S): the guest goes on when, and only when,
    the owner word in the arena is ours.
    """

    sources: tuple[str, ...] = ("defer",)
    stopped: bool = True


def command(
    qemu: Qemu,
    setup: VmmSetup,
    descriptors: Descriptors,
    *,
    functions: tuple[str, ...] = (),
    disks: tuple[Path, ...] = (),
    seed: Path | None = None,
    incoming: Incoming | None = None,
) -> list[str]:
    """The whole argument vector; `functions` are the addresses in this root of the PCI functions that the VM
    owns, `disks` the block devices that its disks are here, `seed` the file with the disk for cloud-init.
    """
    definition = setup.definition
    words = [
        os.fspath(qemu.program), "-name", option("", {"guest": definition.name}),
        "-nodefaults", "-no-user-config", "-display", "none", "-action", "panic=none",
        "-machine", machine(definition.machine, definition.firmware),
        "-accel", qemu.accel, "-cpu", cpu(qemu, definition.cpu),
        *_MACHINE_WORDS[machine_kind(definition.machine)],
        "-smp", str(definition.cpus), "-m", option("", {"size": f"{definition.ram_bytes}B"}),
        "-object", _memory(setup.arena, setup.extent),
        *_start(setup),
        "-chardev", option("socket", {"id": "qmp", "fd": descriptors.qmp, "server": True, "wait": False}),
        "-mon", option("", {"chardev": "qmp", "mode": "control"}),
        "-chardev", option("socket", {"id": "serial", "fd": descriptors.serial}),
        "-serial", "chardev:serial",
    ]  # fmt: skip
    if descriptors.taps:
        driver, settings = _CARDS[machine_kind(definition.machine)]
        for card, tap in zip(definition.cards, descriptors.taps, strict=True):
            words += [
                "-netdev", option("tap", {"id": "net", "fd": tap}),
                "-device", option(driver, {**settings, "netdev": "net", "mac": card.mac}),
            ]  # fmt: skip
    for number, (disk, node) in enumerate(zip(definition.disks, disks, strict=True)):
        words += disk_words(number, disk, node, boots=definition.firmware != DIRECT)
    if seed is not None:
        words += seed_words(seed, boots=definition.firmware != DIRECT)
    for address in functions:
        # Without its ROM, which QEMU would read from the device.
        words += [
            "-device", option("pcie-root-port", {"id": "owned", "chassis": 1}),
            "-device", option(
                "vfio-pci", {"host": address, "bus": "owned", "rombar": 0, "enable-migration": True}
            ),
        ]  # fmt: skip
    if descriptors.monitor is not None:
        words += [
            "-chardev", option("socket", {"id": "monitor", "fd": descriptors.monitor}),
            "-mon", option("", {"chardev": "monitor", "mode": "control"}),
        ]  # fmt: skip
    if incoming is not None:
        words += ["-S"] if incoming.stopped else []
        words += [word for source in incoming.sources for word in ("-incoming", source)]
    return words


def cpu(qemu: Qemu, text: str) -> str:
    """QEMU's -cpu value. What is written out, it must give whole, or not start."""
    if not cpu_model.is_written_out(text):
        return text if text != cpu_model.HOST else qemu.cpu
    return f"{text},enforce=on"


def machine(text: str, firmware: str = DIRECT) -> str:
    """QEMU's -machine value for a definition's machine; the definition's own options win."""
    kind, *words = text.split(",")
    own = dict(word.split("=", 1) for word in words)
    rom = _FIRMWARE[firmware]
    return option(kind, {**_MACHINE_OPTIONS[kind], "firmware": rom, "memory-backend": RAM_BLOCK, **own})


def _start(setup: VmmSetup) -> list[str]:
    """What the guest starts with, if not with what is on its disk."""
    if setup.definition.firmware != DIRECT:
        return []
    return [
        "-kernel", os.fspath(setup.image.kernel), "-initrd", os.fspath(setup.image.initrd),
        "-append", guest_command_line(setup.definition),
    ]  # fmt: skip


def disk_words(number: int, disk: Disk, node: Path, *, boots: bool) -> list[str]:
    """Disk `number` (from 0) of a VM; firmware that `boots` tries them in this order. Nothing of it is cached
    in this root: another may go on with it.
    """
    name = f"disk{number}"
    backend: dict[str, Value] = {
        "driver": "host_device", "node-name": name, "filename": node,
        "cache.direct": True, "read-only": disk.read_only, "discard": "unmap",
    }  # fmt: skip
    slot = f"{DISK_SLOT + number:#x}"
    front: dict[str, Value] = {"drive": name, **({"bootindex": number} if boots else {})}
    virtio = _MODERN if boots else _LEGACY
    if disk.bus == "virtio-blk":
        words = ["-device", option("virtio-blk-pci", {**virtio, "addr": slot, **_QUEUE, **front})]
    else:
        bus, kind = f"scsi{number}", "scsi-cd" if disk.bus == "cd" else "scsi-hd"
        words = [
            "-device", option("virtio-scsi-pci", {**virtio, "addr": slot, "id": bus}),
            "-device", option(kind, {"bus": f"{bus}.0", **front}),
        ]  # fmt: skip
    return ["-blockdev", option("", backend), *words]


def seed_words(seed: Path, *, boots: bool) -> list[str]:
    """The disk for cloud-init, from which nothing boots."""
    backend: dict[str, Value] = {"driver": "file", "node-name": "seed", "filename": seed, "read-only": True}
    virtio = _MODERN if boots else _LEGACY
    front: dict[str, Value] = {**virtio, "addr": f"{SEED_SLOT:#x}", **_QUEUE, "drive": "seed"}
    return ["-blockdev", option("", backend), "-device", option("virtio-blk-pci", front)]


def _memory(arena: Path, extent: Extent) -> str:
    """Guest RAM, shared with whoever else maps this extent: that is what makes x-ignore-shared skip it."""
    return option(
        "memory-backend-file",
        {
            "id": RAM_BLOCK,
            "size": f"{extent.size}B",
            "mem-path": arena,
            "offset": f"{extent.offset}B",
            "align": "2M",
            "share": True,
        },
    )
