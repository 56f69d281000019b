# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's memory map, given to a waiting QEMU before the device state comes.

A QEMU that loads registers which place something in the guest's address spaces (shadow RAM, the ECAM window,
ACPI's ports, BARs) builds its memory map anew for one device after the other, and KVM its slots: most of what
loading a q35 takes. If the waiting QEMU has these registers as the giver has them, nothing is left to build.
They decide nothing: the device state comes whole all the same, so it does no harm when the guest changes one
in between.

QEMU's human monitor is what reads and writes them: `xp` reads configuration space through ECAM, which unlike
the ports has no address latch that the running guest could be using; `o` writes through the ports of the
waiting QEMU, whose guest does not run. Registers: Intel 3 Series (q35) and ICH9 datasheets, PCI 3.0 6.2, and
QEMU's docs/specs/acpi_cpu_hotplug.rst.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass

from multiroot.errors import CommandError
from multiroot.vm.definition import MOST_CARDS, machine_kind
from multiroot.vm.qemu.command import CARD_SLOT
from multiroot.vm.qemu.monitor import Monitor
from multiroot.vm.qemu.qmp import Qmp

ECAM = 0xB000_0000  # where firmware leaves q35's window; what is there must look like it
_ENABLED = 1  # in the register that places it, with 256 MiB
_ADDRESS_PORT, _DATA_PORT = 0xCF8, 0xCFC
_CPU_HOTPLUG = 0xCD8  # a bitmap of CPUs until 0 is written to it, then the registers of the modern interface
_LINE = re.compile(r"^([0-9a-f]+):((?: 0x[0-9a-f]{8})+)\s*$")
_PORT = re.compile(r"= (0x[0-9a-f]+)\s*$")


@dataclass(frozen=True)
class Register:
    """Configuration space of bus 0: device and function (8 bits), offset (a dword's) and size in bytes."""

    function: int
    offset: int
    size: int = 4


@dataclass(frozen=True)
class Function:
    """What is read of one PCI function; `identity` is its device (high half) and vendor."""

    number: int
    identity: int
    registers: tuple[Register, ...]

    @property
    def end(self) -> int:
        """As many bytes of its configuration space have to be read, a multiple of 4."""
        return max(register.offset for register in self.registers) + 4


def _function(number: int, identity: int, *registers: tuple[int, int]) -> Function:
    return Function(number, identity, tuple(Register(number, offset, size) for offset, size in registers))


# In the order in which they are written: the command register, which enables BARs, is the card's last. Not
# among them: the root complex's register block (QEMU adds it to the map when it loads a state that has it on,
# and fails if it is there already), and a VM's own device (its configuration space is real hardware).
_ECAM_LOW, _ECAM_HIGH = (0x60, 4), (0x64, 4)
_SHADOW = (0x90, 4), (0x94, 4)
_HOST = _function(0x00, 0x29C0_8086, _ECAM_HIGH, _ECAM_LOW, *_SHADOW)
_LPC = _function(0xF8, 0x2918_8086, (0x40, 4), (0x44, 1))  # base of ACPI's ports, and whether they are there
_BARS = tuple((0x10 + 4 * bar, 4) for bar in range(6))
_CARDS = tuple(
    _function(CARD_SLOT + number << 3, 0x1000_1AF4, *_BARS, (0x04, 1)) for number in range(MOST_CARDS)
)
FUNCTIONS = {"q35": (_HOST, _LPC, *_CARDS)}


@dataclass(frozen=True)
class MemoryMap:
    """Registers with their values; whether CPU hot-plug has its modern interface."""

    registers: Mapping[Register, int]
    modern_hotplug: bool = False


NOTHING = MemoryMap({})


def pack(memory_map: MemoryMap) -> bytes:
    """As hints for another QEMU; empty for NOTHING."""
    if memory_map == NOTHING:
        return b""
    registers = [[*astuple(register), value] for register, value in memory_map.registers.items()]
    return json.dumps({"registers": registers, "modern_hotplug": memory_map.modern_hotplug}).encode()


def unpack(hints: bytes) -> MemoryMap:
    """What was packed; raises CommandError for anything else."""
    if not hints:
        return NOTHING
    try:
        data = json.loads(hints)
        registers = {
            Register(int(function), int(offset), int(size)): int(value)
            for function, offset, size, value in data["registers"]
        }
        return MemoryMap(registers, bool(data["modern_hotplug"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise CommandError(f"the giver's hints are no memory map: {error}") from error


async def read(qmp: Qmp, machine: str, cards: int = 1) -> MemoryMap:
    """What the guest of a running QEMU with so many cards has set; NOTHING for machines of which no registers
    are known here.

    Raises CommandError when QEMU refuses, VmmGoneError. A guest that has its ECAM elsewhere is no error:
    nothing is known then.
    """
    there = [function for function in _functions(machine) if function not in _CARDS[cards:]]
    spaces = {function: await _space(qmp, function) for function in there}
    registers = known(spaces)
    if not registers:
        return NOTHING
    answer = _PORT.search(await qmp.human(f"i /b {_CPU_HOTPLUG:#x}"))
    return MemoryMap(registers, answer is not None and int(answer[1], 16) == 0)


def give(monitor: Monitor, machine: str, memory_map: MemoryMap) -> None:
    """Set them in a waiting QEMU; what is not in FUNCTIONS is left alone. Blocks, some milliseconds a line.

    Raises CommandError with QEMU's own words when it does not take one, VmmGoneError.
    """
    for line in lines(machine, memory_map):
        if said := monitor.human(line):
            raise CommandError(f"QEMU refused {line!r}: {said.strip()}")


def lines(machine: str, memory_map: MemoryMap) -> list[str]:
    """The commands for it; pure. Zeros are left out: they are what a QEMU begins with."""
    functions = _functions(machine)
    commands = [f"o /b {_CPU_HOTPLUG:#x} 0"] if functions and memory_map.modern_hotplug else []
    for function in functions:
        for register in function.registers:
            if value := memory_map.registers.get(register, 0):
                commands += _write(register, value)
    return commands


def _functions(machine: str) -> tuple[Function, ...]:
    return FUNCTIONS.get(machine_kind(machine), ())


def known(spaces: Mapping[Function, bytes]) -> dict[Register, int]:
    """The registers' values in configuration spaces; none if these are not the functions they should be.

    A card may be missing; that its registers are the host bridge's tells that ECAM is where we think it is.
    """
    host = spaces.get(_HOST, b"")
    if not _is(_HOST, host) or _value(host, *_ECAM_LOW) != ECAM | _ENABLED:
        return {}
    return {
        register: _value(space, register.offset, register.size)
        for function, space in spaces.items()
        if _is(function, space)
        for register in function.registers
    }


def parse_dump(text: str) -> bytes:
    """Memory as `xp /Nxw` prints it: lines of an address, a colon and words; empty if it is not that."""
    words: list[bytes] = []
    for line in text.splitlines():
        if not (match := _LINE.match(line)):
            return b""
        words += [int(word, 16).to_bytes(4, "little") for word in match[2].split()]
    return b"".join(words)


async def _space(qmp: Qmp, function: Function) -> bytes:
    return parse_dump(await qmp.human(f"xp /{function.end // 4}xw {ECAM + (function.number << 12):#x}"))


def _is(function: Function, space: bytes) -> bool:
    return len(space) >= function.end and _value(space, 0, 4) == function.identity


def _value(space: bytes, offset: int, size: int) -> int:
    return int.from_bytes(space[offset : offset + size], "little")


def _write(register: Register, value: int) -> list[str]:
    address = 0x8000_0000 | register.function << 8 | register.offset
    form = {1: "b", 4: "w"}[register.size]
    return [f"o /w {_ADDRESS_PORT:#x} {address:#x}", f"o /{form} {_DATA_PORT:#x} {value:#x}"]
