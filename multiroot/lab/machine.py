# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of a lab machine: pure, from a configuration to an argument list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiroot import arch
from multiroot.lab import layout
from multiroot.lab.lab_disks import LabDisk
from multiroot.lab.layout import Layout
from multiroot.lab.recorder import NEW_SERIAL_SOCKET, OLD_SERIAL_SOCKET, RECORDER_QMP_SOCKET
from multiroot.lab.roots import loader_argv
from multiroot.net import addresses
from multiroot.units import MIB
from multiroot.vm.qemu.options import Value, option

Options = dict[str, Value | tuple[Value, ...]]

# Ports inside the old root that are forwarded to the workstation's loopback.
AGENT_PORT = 7700
EXEC_PORT = 7701

# In the lab's state folder.
TOKEN = "token"  # 0600
QMP_SOCKET = "qmp.sock"  # for whoever wants to talk to QEMU
# QEMU's trace events for a reset of a network card: by the bus or the function, by its driver, of a VF.
RESET_EVENTS = ("e1000e_cb_qdev_reset_hold", "e1000e_core_ctrl_sw_reset", "igb_core_vf_reset")
# The machine's two cards: the roots' own way out, and the guests' (docs/architecture.md, "Two networks").
# Whatever root has them knows them by these addresses: qemu-lab/image/files/usr/lib/multiroot/.
CONTROL_MAC, UPLINK_MAC = "52:54:00:12:34:56", "52:54:00:75:70:00"
UPLINK, UPLINK_SLOT = "uplink", 0xF
CPU_LOG = "cpu.log"  # registers at each INIT, reset and triple fault: the only trace of why a machine ended


# A host bridge beside the machine's own, and the first bus behind it.
SECOND_BRIDGE, SECOND_BRIDGE_BUS = "bridge2", 0x40


@dataclass(frozen=True)
class MachineDevice:
    """A PCI device behind a root port of its own; `model` is QEMU's, with options behind commas."""

    model: str
    network: bool
    disk: int = 0  # bytes, 0: none
    second_bridge: bool = False  # behind a host bridge of its own


@dataclass(frozen=True)
class Machine:
    """One lab machine, completely decided. `old_cpus` is who keeps which CPU; the kernel sees all of them."""

    name: str
    kernel: str
    release: str
    vmlinuz: Path
    initrd: Path
    image: Path
    emulator: Path
    emulator_mend: Path  # library that mends its emulation of SVM (qemu-lab/emulator)
    accelerator: str  # "tcg" or "kvm"
    cpus: int
    old_cpus: tuple[int, ...]
    vms: int
    vm_memory: int
    layout: Layout
    low_reserved: bool
    cmdline: tuple[str, ...]
    agent_port: int
    exec_port: int
    state: Path
    hold: bool = False  # at its end it stays, paused, for a debugger
    iommu: str = ""  # options of the emulated IOMMU, "" for none
    iommu_vendor: str = "intel"
    devices: tuple[MachineDevice, ...] = ()
    nodes: int = 1  # NUMA nodes
    disks: tuple[LabDisk, ...] = ()  # at layout.disks
    sparse: bool = False  # the workstation need not have as much memory
    without: tuple[str, ...] = ()  # names of QEMU's for what it lacks
    slowness: float = 1.0  # of the old root's kernel
    tsc_khz: int = 0  # told to the first kernel; 0: it measures


def kernel_cmdline(machine: Machine) -> str:
    """Command line of the old root's kernel. Serial port 1 is its console, port 0 the new root's."""
    words = [f"console={arch.current().serial}1,115200", *machine.layout.cmdline(), *machine.cmdline]
    if machine.low_reserved:
        low = layout.low_reserved()
        words.append(f"memmap={low.size // 1024}K${low.start:#x}")
    if machine.tsc_khz:
        words.append(f"tsc_early_khz={machine.tsc_khz}")
    return " ".join(words)


def qemu_argv(machine: Machine) -> list[str]:
    """The QEMU command, run through the emulator root's dynamic loader."""
    of_qemu = arch.current().lab
    state = machine.state
    forwards = ((machine.agent_port, AGENT_PORT), (machine.exec_port, EXEC_PORT))
    network = tuple(f"tcp:127.0.0.1:{outside}-10.0.2.15:{inside}" for outside, inside in forwards)
    memory: Options = {"slots": 1 + len(machine.disks), "maxmem": f"{machine.layout.max_memory // MIB}M"}
    card: Options = {"netdev": "net", "mac": CONTROL_MAC, "disable-legacy": True, "romfile": ""}
    tcg = option("tcg", {"thread": "multi"})
    options: list[tuple[str, str]] = [
        ("-name", f"multiroot-{machine.name}"),
        ("-machine", option(of_qemu.machine_type, {"nvdimm": True, **dict.fromkeys(machine.without, False)})),
        ("-accel", tcg if machine.accelerator == "tcg" else machine.accelerator),
        ("-cpu", of_qemu.cpu),
        # Kernels do not believe that CPUs of one socket are on several nodes.
        ("-smp", f"{machine.cpus},sockets={machine.nodes}" if machine.nodes > 1 else str(machine.cpus)),
        ("-m", option(f"{machine.layout.ram // MIB}M", memory)),
        *image_options(machine.image, machine.layout.image.size),
        *_disk_options(machine),
        ("-kernel", str(machine.vmlinuz)),
        ("-initrd", str(machine.initrd)),
        ("-append", kernel_cmdline(machine)),
        # Not on the kernel's command line, which every process in the root may read.
        ("-fw_cfg", option("", {"name": "opt/multiroot/token", "file": token_file(machine)})),
        ("-netdev", option("user", {"id": "net", "hostfwd": network})),
        ("-device", option("virtio-net-pci", card)),
        *_uplink_options(),
        ("-chardev", _socket("new", state / NEW_SERIAL_SOCKET)),
        ("-serial", "chardev:new"),
        ("-chardev", _socket("old", state / OLD_SERIAL_SOCKET)),
        ("-serial", "chardev:old"),
        ("-chardev", _socket("recorder", state / RECORDER_QMP_SOCKET)),
        ("-object", option("monitor-qmp", {"id": "recorder-control", "chardev": "recorder"})),
        # -qmp unix:PATH would take a path with "=" in it for a name and a value.
        ("-chardev", _socket("monitor", state / QMP_SOCKET, server=True, wait=False)),
        ("-object", option("monitor-qmp", {"id": "monitor-control", "chardev": "monitor"})),
        ("-display", "none"),
        ("-d", "cpu_reset"),
        ("-D", str(state / CPU_LOG)),
    ]
    options += _memory_options(machine) + _passthrough_options(machine)
    words = [word for pair in options for word in pair]
    end = "pause" if machine.hold else "poweroff"
    mend = machine.emulator_mend if machine.accelerator == "tcg" else None
    return [*emulator_argv(machine.emulator, mend), "-action", f"shutdown={end}", *words]


def _uplink_options() -> list[tuple[str, str]]:
    """The guests' network goes on in a network of the workstation's, which gives them addresses."""
    outside: Options = {
        "id": UPLINK,
        "ipv6": False,
        "net": str(addresses.GUESTS),
        "host": addresses.OUTSIDE,
        "dns": addresses.OUTSIDE_NAMES,
        "dhcpstart": addresses.FIRST_LEASE,
    }
    card: Options = {"netdev": UPLINK, "mac": UPLINK_MAC, "addr": f"{UPLINK_SLOT:#x}"}
    return [
        ("-netdev", option("user", outside)),
        ("-device", option("virtio-net-pci", {**card, "disable-legacy": True, "romfile": ""})),
    ]


def image_options(image: Path, size: int) -> list[tuple[str, str]]:
    """A system image of `size` bytes as an NVDIMM that nobody can write to."""
    file: Options = {"id": "image", "mem-path": image, "size": size, "share": True, "readonly": True}
    return [
        ("-object", option("memory-backend-file", file)),
        ("-device", option("nvdimm", {"memdev": "image", "unarmed": True})),
    ]


def _disk_options(machine: Machine) -> list[tuple[str, str]]:
    """What all roots see and write to."""
    options: list[tuple[str, str]] = []
    for number, (disk, place) in enumerate(zip(machine.disks, machine.layout.disks, strict=True), 1):
        name = f"pmem{number}"
        file: Options = {"id": name, "mem-path": disk.file, "size": place.size, "share": True}
        options.append(("-object", option("memory-backend-file", file)))
        options.append(("-device", option("nvdimm", {"memdev": name, "addr": f"{place.start:#x}"})))
    return options


def _socket(name: str, path: Path, **settings: Value) -> str:
    return option("socket", {"id": name, "path": path, **settings})


def token_file(machine: Machine) -> Path:
    """What the machine's forwarded ports want to be told. The machine reads it as a firmware file."""
    return machine.state / TOKEN


def card_sockets(machine: Machine, number: int) -> tuple[Path, Path]:
    """Datagram sockets of network card `number` (from 1): where it takes frames, and where it sends them."""
    return machine.state / f"card{number}.sock", machine.state / f"wire{number}.sock"


def disk_name(number: int) -> str:
    """What QEMU calls the disk of device `number` (from 1)."""
    return f"disk{number}"


def disk_file(machine: Machine, number: int) -> Path:
    """Where the contents of the disk of device `number` are."""
    return machine.state / f"{disk_name(number)}.img"


def disk_marker(number: int) -> bytes:
    """What the first sector of a new disk begins with."""
    return f"multiroot lab disk {number}\n".encode()


def make_disks(machine: Machine) -> None:
    """New disks, all zeros behind their markers."""
    for number, device in enumerate(machine.devices, 1):
        if device.disk:
            with disk_file(machine, number).open("wb") as file:
                file.write(disk_marker(number))
                file.truncate(device.disk)


def _memory_options(machine: Machine) -> list[tuple[str, str]]:
    """CPUs and RAM in equal parts for several nodes; RAM that takes what is written, where it is sparse."""
    if machine.sparse:
        memory: Options = {"id": "ram", "size": f"{machine.layout.ram // MIB}M", "reserve": False}
        return [
            ("-object", option("memory-backend-ram", memory)),
            ("-machine", option("", {"memory-backend": memory["id"]})),
        ]
    return _node_options(machine)


def _node_options(machine: Machine) -> list[tuple[str, str]]:
    if machine.nodes == 1:
        return []
    options: list[tuple[str, str]] = []
    for node in range(machine.nodes):
        first = machine.cpus * node // machine.nodes
        last = machine.cpus * (node + 1) // machine.nodes - 1
        memory: Options = {"id": f"node{node}", "size": f"{machine.layout.ram // machine.nodes // MIB}M"}
        share: Options = {"nodeid": node, "cpus": f"{first}-{last}", "memdev": memory["id"]}
        options.append(("-object", option("memory-backend-ram", memory)))
        options.append(("-numa", option("node", share)))
    return options


def _passthrough_options(machine: Machine) -> list[tuple[str, str]]:
    options: list[tuple[str, str]] = []
    if machine.iommu:
        options.append(("-device", f"{arch.current().lab.iommu[machine.iommu_vendor]},{machine.iommu}"))
    if machine.devices:
        options += [("-trace", event) for event in RESET_EVENTS]
    if any(device.second_bridge for device in machine.devices):
        bridge: Options = {"id": SECOND_BRIDGE, "bus": "pcie.0", "bus_nr": SECOND_BRIDGE_BUS}
        options.append(("-device", option("pxb-pcie", bridge)))
    for number, device in enumerate(machine.devices, 1):
        # Slots from 16 on are free, so that bus numbers follow the order of the recipe.
        port = f"port{number}"
        above = SECOND_BRIDGE if device.second_bridge else "pcie.0"
        where: Options = {"id": port, "bus": above, "chassis": number, "addr": f"{number + 15:#x}"}
        options.append(("-device", option("pcie-root-port", where)))
        wiring: Options = {"bus": port}
        if device.network:
            into, out = card_sockets(machine, number)
            wiring["netdev"] = f"card{number}"
            local: Options = {"local.type": "unix", "local.path": into}
            remote: Options = {"remote.type": "unix", "remote.path": out}
            options.append(("-netdev", option("dgram", {"id": wiring["netdev"], **local, **remote})))
        if device.disk:
            wiring["drive"] = disk_name(number)
            drive: Options = {"if": "none", "id": wiring["drive"], "format": "raw"}
            options.append(("-drive", option("", {**drive, "file": disk_file(machine, number)})))
        options.append(("-device", f"{device.model},{option('', wiring)}"))
    return options


def emulator_argv(emulator: Path, preload: Path | None = None) -> list[str]:
    """QEMU of the emulator root, with no default devices.

    A reset would lose everything a lab machine is for: it ends the machine, and the recorder counts it.
    """
    firmware = [emulator / "usr/share/qemu", emulator / "usr/share/seabios"]
    search = [word for folder in firmware for word in ("-L", str(folder))]
    program = loader_argv(emulator, f"bin/{arch.current().lab.program}", preload)
    return [*program, *search, "-nodefaults", "-no-reboot"]
