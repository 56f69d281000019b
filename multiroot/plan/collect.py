# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the inventory of the machine it runs on: the one module of `plan` that reads files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch
from multiroot.errors import MultirootError
from multiroot.plan import iomem
from multiroot.plan.inventory import Cpu, FirmwareRange, Inventory, MemoryBlock
from multiroot.ranges import Range
from multiroot.units import parse_cpu_list


@dataclass(frozen=True)
class ProbedCpu:
    """What only the module knows: the hardware id of an offline CPU, and who has it (0: nobody)."""

    hardware_id: int
    owner: int


Probe = Callable[[int], ProbedCpu]


def collect(
    top: Path = Path("/"),
    *,
    probe: Probe | None = None,
    root: int = 1,
    boot_hardware_id: int | None = None,
    firmware: tuple[FirmwareRange, ...] | None = None,
) -> Inventory:
    """The inventory of the machine whose /proc and /sys are below `top`.

    `probe`, `root` and `boot_hardware_id` come from /dev/multiroot; without them the hardware ids of offline
    CPUs stay unknown. `firmware` is the machine's memory map; a root that another one started has seen only a
    part of it. Raises MultirootError when a file is missing and BadRequestError when /proc/iomem hides its
    addresses.
    """
    return Inventory(
        root=root,
        cpus=_cpus(top, probe, boot_hardware_id),
        iomem=iomem.parse(_read(top / "proc/iomem")),
        firmware=_firmware(top / "sys/firmware/memmap") if firmware is None else firmware,
        blocks=_blocks(top / "sys/devices/system/memory"),
        regions=_regions(top / "sys/bus/nd/devices"),
    )


def _cpus(top: Path, probe: Probe | None, boot_hardware_id: int | None) -> tuple[Cpu, ...]:
    folder = top / "sys/devices/system/cpu"
    online = parse_cpu_list(_read(folder / "online"))
    known = arch.current().cpus.hardware_ids(_read(top / "proc/cpuinfo"))
    present = parse_cpu_list(_read(folder / "present"))
    probed = {n: probe(n) for n in present} if probe else {}
    hardware_ids = {n: probed[n].hardware_id if n in probed else known.get(n) for n in present}
    threads = {n: parse_cpu_list(_read(folder / f"cpu{n}/topology/thread_siblings_list")) for n in online}
    shift = thread_bits(threads, hardware_ids)
    return tuple(
        Cpu(
            number=n,
            hardware_id=hardware_ids[n],
            online=n in online,
            siblings=_siblings(n, hardware_ids, shift) or threads.get(n, (n,)),
            # CPU 0 can not go offline, whatever root this is; the machine's boot CPU must never see INIT.
            is_boot=n == 0 or (boot_hardware_id is not None and hardware_ids[n] == boot_hardware_id),
            owner=probed[n].owner if n in probed else 0,
        )
        for n in present
    )


def thread_bits(threads: dict[int, tuple[int, ...]], hardware_ids: dict[int, int | None]) -> int:
    """How many low bits of the hardware id tell threads of a core apart.

    Taken from cores with several threads online: an offline CPU has no topology in sysfs and is
    missing from its siblings' (kernel: store_topo_cpumask), but its hardware id still tells its core.
    """
    bits = 0
    for siblings in threads.values():
        ids = [hardware_id for n in siblings if (hardware_id := hardware_ids.get(n)) is not None]
        bits = max([bits, *((ids[0] ^ other).bit_length() for other in ids)])
    return bits


def _siblings(number: int, hardware_ids: dict[int, int | None], shift: int) -> tuple[int, ...]:
    """CPUs of the same core by hardware id; empty when it is unknown."""
    own = hardware_ids[number]
    if own is None:
        return ()
    return tuple(
        n
        for n, hardware_id in sorted(hardware_ids.items())
        if hardware_id is not None and hardware_id >> shift == own >> shift
    )


def _firmware(folder: Path) -> tuple[FirmwareRange, ...]:
    """/sys/firmware/memmap (Documentation/ABI/testing/sysfs-firmware-memmap)."""
    found = []
    for entry in _numbered(folder, r"(\d+)"):
        start, end = int(_read(entry / "start"), 16), int(_read(entry / "end"), 16)
        found.append(FirmwareRange(Range.between(start, end + 1), _read(entry / "type")))
    return tuple(sorted(found, key=lambda item: item.range))


def _regions(folder: Path) -> tuple[Range, ...]:
    """Devices of persistent memory (Documentation/driver-api/nvdimm); none on a kernel that knows of none."""
    found = []
    for entry in _numbered(folder, r"region(\d+)") if folder.is_dir() else ():
        size = int(_read(entry / "size"))
        if size:
            found.append(Range(int(_read(entry / "resource"), 16), size))
    return tuple(sorted(found))


def _blocks(folder: Path) -> tuple[MemoryBlock, ...]:
    """Memory blocks; none on a kernel without memory hotplug."""
    if not folder.is_dir():
        return ()
    size = int(_read(folder / "block_size_bytes"), 16)
    found = []
    for entry in _numbered(folder, r"memory(\d+)"):
        online = _read(entry / "state") != "offline"
        zones = _read(entry / "valid_zones").split() if online else []
        base = int(_read(entry / "phys_index"), 16) * size
        zone = zones[0] if len(zones) == 1 and zones[0] != "none" else ""
        found.append(MemoryBlock(int(entry.name.removeprefix("memory")), Range(base, size), online, zone))
    return tuple(sorted(found, key=lambda block: block.range))


def _numbered(folder: Path, pattern: str) -> Iterable[Path]:
    if not folder.is_dir():
        raise MultirootError(f"{folder} is missing", "the kernel was built without it")
    return (entry for entry in folder.iterdir() if re.fullmatch(pattern, entry.name))


def _read(path: Path) -> str:
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise MultirootError(f"can not read {path}: {error.strerror}") from error
