# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking over what a root that has ended leaves: CPUs, memory. Each function may be called again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from multiroot.device.handle import Device
from multiroot.device.uapi import MemoryAction
from multiroot.errors import ConflictError
from multiroot.launch import carve
from multiroot.plan import iomem
from multiroot.plan.estate import heritage
from multiroot.ranges import Range
from multiroot.units import MIB

# Below 1 GiB, so that the kernel maps none of it with a 1 GiB page: removing part of one makes 6.12 fault.
MEMORY_UNIT = 512 * MIB
# What is zeroed in one call: not long, for nothing else can be asked of the module meanwhile.
ZERO_STEP = 16 * MIB
ZERO_RATE = 512 * MIB  # bytes/s; a memory that is slower gets no pauses


@dataclass(frozen=True)
class AdoptedCpu:
    """A CPU that came over, its number here, and how long it took to come online, in seconds."""

    hardware_id: int
    number: int
    seconds: float


def foreign_cpus(device: Device) -> tuple[int, ...]:
    """Hardware ids of the CPUs that are not this root's by the ledger."""
    mine = device.info().root
    return tuple(hardware_id for hardware_id, cpu in sorted(device.ledger().cpus.items()) if cpu.root != mine)


def adopt_cpu(device: Device, hardware_id: int, sys: Path = Path("/sys")) -> AdoptedCpu:
    """Make a CPU this root's and bring it online. ConflictError when it does not come."""
    number = device.adopt_cpu(hardware_id).cpu
    before = time.monotonic()
    carve.online_cpus([number], sys)
    return AdoptedCpu(hardware_id, number, round(time.monotonic() - before, 3))


def foreign_memory(device: Device, top: Path = Path("/")) -> tuple[Range, ...]:
    """The machine's memory that no kernel has, in the pieces to add."""
    block = int((top / "sys/devices/system/memory/block_size_bytes").read_text(), 16)
    used = [item.range for item in iomem.parse((top / "proc/iomem").read_text())]
    ram = [Range(entry.addr, entry.size) for entry in device.ledger().first_map if entry.is_ram]
    return heritage(ram, used, block, max(MEMORY_UNIT, block))


def zero(
    device: Device,
    piece: Range,
    wait: Callable[[float], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Overwrite what another root left. VMs run beside it, and need the memory, too: so it pauses for half of
    the time, or for less where it would fall below ZERO_RATE. `wait` gets the seconds after each step.
    """
    for base in range(piece.base, piece.end, ZERO_STEP):
        size = min(ZERO_STEP, piece.end - base)
        before = clock()
        device.memory(MemoryAction.ZERO, base, size)
        took = clock() - before
        pause = min(took, size / ZERO_RATE - took)
        if pause > 0:
            wait(pause)


def add_memory(device: Device, piece: Range, sys: Path = Path("/sys")) -> None:
    """Give the kernel a piece of memory, as movable memory so that a later root can have it."""
    folder = sys / "devices/system/memory"
    block = int((folder / "block_size_bytes").read_text(), 16)
    # Kernels bring new memory online by themselves, and then as memory that can't be taken away again.
    (folder / "auto_online_blocks").write_text("offline")
    device.memory(MemoryAction.ADD, piece.base, piece.size)
    carve.online_blocks([base // block for base in range(piece.base, piece.end, block)], sys)


def offline_pieces(sys: Path = Path("/sys")) -> tuple[int, ...]:
    """Memory blocks that were added and not brought online, by an agent that ended in between."""
    folder = sys / "devices/system/memory"
    states = sorted(folder.glob("memory[0-9]*/state"))
    return tuple(
        int(state.parent.name.removeprefix("memory"))
        for state in states
        if state.read_text().strip() == "offline"
    )


def verify_quiet(device: Device, pieces: Sequence[Range]) -> None:
    """Sum everything up twice; ConflictError when something still writes there."""

    def sums() -> list[int]:
        return [device.memory(MemoryAction.SUM, piece.base, piece.size) for piece in pieces]

    for piece, before, after in zip(pieces, sums(), sums(), strict=True):
        if before != after:
            raise ConflictError(f"something still writes to {piece}", "a device that was not stopped?")
