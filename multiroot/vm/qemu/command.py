# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU command line of a VM; pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multiroot.vm import cpu_model
from multiroot.vm.definition import DIRECT, OVMF, SEABIOS, Card, machine_kind
from multiroot.vm.guests import guest_command_line
from multiroot.vm.qemu.disks import CODE, VARIABLES, disk_words, flash_words, order_words, seed_words
from multiroot.vm.qemu.options import Value, option
from multiroot.vm.vmm import CardWires, DiskLogin, VmmSetup

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
WATCHDOG_SLOT = 0x1D
CARD_SLOT = 1  # on q35's bus 0, and one more for each further card
_CARDS: dict[str, tuple[str, dict[str, Value]]] = {
    "q35": (
        "virtio-net-pci",
        {"disable-modern": True, "disable-legacy": False, "romfile": ""},
    ),
    "microvm": ("virtio-net-device", {}),
}
# QEMU sends the whole of it at a handoff, so the smaller SeaBIOS, which boots from all that a VM can have.
_FIRMWARE: dict[str, dict[str, Value]] = {
    DIRECT: {"firmware": "qboot.rom"},
    SEABIOS: {"firmware": "bios.bin"},
    OVMF: {"pflash0": CODE, "pflash1": VARIABLES},
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
    """What QEMU inherits: a listening socket for QMP, a connected one for the serial port, wires of cards,
    and for a QEMU that waits for a device state a connected socket for a second QMP monitor.
    """

    qmp: int
    serial: int
    cards: tuple[CardWires, ...] = ()
    monitor: int | None = None

    def all(self) -> tuple[int, ...]:
        wires = (fd for card in self.cards for fd in (*card.taps, *card.vhosts))
        return tuple(fd for fd in (self.qmp, self.serial, *wires, self.monitor) if fd is not None)


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
    disks: tuple[Path | None, ...] = (),
    logins: tuple[DiskLogin | None, ...] = (),
    seed: Path | None = None,
    incoming: Incoming | None = None,
) -> list[str]:
    """The whole argument vector; `functions` are the addresses in this root of the PCI functions that the VM
    owns, `disks` the block devices that its disks are here, None for those of a server, `logins` what
    their servers want, none if no server wants any, `seed` the file with the disk for cloud-init.
    """
    definition = setup.definition
    words = [
        os.fspath(qemu.program), "-name", option("", {"guest": definition.name}),
        "-nodefaults", "-no-user-config", "-display", "none", "-action", _actions(definition.watchdog),
        "-machine", machine(definition.machine, definition.firmware),
        "-accel", qemu.accel, "-cpu", cpu(qemu, setup.cpu or definition.cpu),
        *_MACHINE_WORDS[machine_kind(definition.machine)], *_watchdog_words(definition.watchdog),
        "-smp", str(definition.cpus), "-m", option("", {"size": f"{definition.ram_bytes}B"}),
        "-object", _memory(setup),
        *_start(setup),
        "-chardev", option("socket", {"id": "qmp", "fd": descriptors.qmp, "server": True, "wait": False}),
        "-object", option("monitor-qmp", {"id": "qmp-control", "chardev": "qmp"}),
        "-chardev", option("socket", {"id": "serial", "fd": descriptors.serial}),
        "-serial", "chardev:serial",
    ]  # fmt: skip
    if descriptors.cards:
        for number, (card, wires) in enumerate(zip(definition.cards, descriptors.cards, strict=True)):
            words += card_words(number, card, wires, machine_kind(definition.machine))
    for number, (disk, node) in enumerate(zip(definition.disks, disks, strict=True)):
        login = logins[number] if logins else None
        words += disk_words(
            number, disk, node, login, started_by=definition.firmware, order=definition.boot_order
        )
    words += order_words(definition.boot_order, started_by=definition.firmware)
    if seed is not None:
        words += seed_words(seed)
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
            "-object", option("monitor-qmp", {"id": "monitor-control", "chardev": "monitor"}),
        ]  # fmt: skip
    if incoming is not None:
        words += ["-S"] if incoming.stopped else []
        words += [word for source in incoming.sources for word in ("-incoming", source)]
    return words


def card_words(number: int, card: Card, wires: CardWires, machine: str) -> list[str]:
    """Network card `number` (from 0) of a VM."""
    name = f"net{number}"
    several = len(wires.taps) > 1
    backend: dict[str, Value] = {"id": name, "fds" if several else "fd": _descriptors(wires.taps)}
    if wires.vhosts:
        backend |= {"vhost": True, "vhostfds" if several else "vhostfd": _descriptors(wires.vhosts)}
    driver, settings = _CARDS[machine]
    if machine == "q35":
        settings = {**settings, "addr": f"{CARD_SLOT + number:#x}"}
        if several:
            # A vector for each queue's two directions, one for control, one for what has changed.
            settings |= {"mq": True, "vectors": 2 * len(wires.taps) + 2}
    elif several:
        settings = {**settings, "mq": True}
    return [
        "-netdev", option("tap", backend),
        "-device", option(driver, {**settings, "netdev": name, "mac": card.mac}),
    ]  # fmt: skip


def _descriptors(fds: tuple[int, ...]) -> str:
    return ":".join(map(str, fds))


def cpu(qemu: Qemu, text: str) -> str:
    """QEMU's -cpu value. What is written out, it must give whole, or not start. "frozen" that nobody has
    written out is what this root has.
    """
    if cpu_model.is_written_out(text):
        return f"{text},enforce=on"
    model, comma, features = text.partition(",")
    return f"{qemu.cpu if model in (cpu_model.HOST, cpu_model.FROZEN) else model}{comma}{features}"


def machine(text: str, firmware: str = DIRECT) -> str:
    """QEMU's -machine value for a definition's machine; the definition's own options win."""
    return _machine(text, {**_FIRMWARE[firmware], "memory-backend": RAM_BLOCK})


def bare_machine(text: str, watchdog: str) -> tuple[str, ...]:
    """The words for a definition's machine with nothing plugged in that a root has to have."""
    return ("-machine", _machine(text, {}), *_MACHINE_WORDS[machine_kind(text)], *_watchdog_words(watchdog))


def _machine(text: str, more: Mapping[str, Value]) -> str:
    kind, *words = text.split(",")
    own = dict(word.split("=", 1) for word in words)
    return option(kind, {**_MACHINE_OPTIONS[kind], **more, **own})


def _actions(watchdog: str) -> str:
    """What is done when something happens to the guest."""
    return option("", {"panic": "none", **({"watchdog": watchdog} if watchdog else {})})


def _watchdog_words(action: str) -> list[str]:
    """The device. Its driver is in nearly every kernel, and it migrates with the time that it has left."""
    return ["-device", option("i6300esb", {"addr": f"{WATCHDOG_SLOT:#x}"})] if action else []


def _start(setup: VmmSetup) -> list[str]:
    """What the guest starts with, if not with what is on its disk."""
    flash = flash_words(setup.folder) if setup.definition.firmware == OVMF else []
    if setup.definition.boots_a_disk:
        return flash
    initrd = ["-initrd", os.fspath(setup.image.initrd)] if setup.image.initrd else []
    return [
        *flash,
        "-kernel", os.fspath(setup.image.kernel), *initrd,
        "-append", guest_command_line(setup.definition),
    ]  # fmt: skip


def _memory(setup: VmmSetup) -> str:
    """Guest RAM, shared with whoever else maps this extent: that is what makes x-ignore-shared skip it.

    It is mapped before the guest runs. Else the guest waits for that, page by page, after each handoff.
    """
    return option(
        "memory-backend-file",
        {
            "id": RAM_BLOCK,
            "size": f"{setup.extent.size}B",
            "mem-path": setup.arena,
            "offset": f"{setup.extent.offset}B",
            "align": "2M",
            "share": True,
            **({"prealloc": True} if setup.populate else {}),
        },
    )
