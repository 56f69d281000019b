# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between architectures, and the implementation for this machine's."""

from __future__ import annotations

from typing import Protocol

from multiroot import arch
from multiroot.errors import MultirootError
from multiroot.vmcore.core_file import Note
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.kallsyms import Symbols
from multiroot.vmcore.space import Space
from multiroot.vmcore.x86 import paging, registers, stack
from multiroot.vmcore.x86.stack import Place


class Tables(Space, Protocol):
    """A kernel's page tables. What was read of them once is not read again."""

    def physical(self, address: int) -> int:
        """Where a virtual address is. Raises UnmappedError."""


class Stacks(Protocol):
    """Traces of one kernel. Every function raises UnmappedError."""

    def cpus(self) -> list[int]:
        """The CPUs that are online."""

    def of_task(self, cpu: int) -> int:
        """Where the stack begins of the task that a CPU runs: how far it reaches nobody knows."""

    def trace(self, stack: int) -> list[Place]:
        """From the end of a stack at `stack` to its begin, and on where an interrupt came in."""


def _check() -> None:
    if arch.current().name != "x86":
        raise MultirootError(f"the memory of kernels for {arch.current().title} cannot be read")


def tables(read: paging.Read, info: VmcoreInfo) -> Tables:
    """The tables of the kernel that `info` tells of. `read` reads physical memory. Raises UnmappedError."""
    _check()
    return paging.Tables(read, info)


def stacks(space: Space, info: VmcoreInfo, symbols: Symbols) -> Stacks:
    """The stacks of that kernel."""
    _check()
    return stack.Stacks(space, info, symbols)


def current_task(space: Space, symbols: Symbols, cpu: int) -> int:
    """Where the struct task_struct is of what a CPU runs. Raises UnmappedError."""
    return stack.current_task(space, symbols, cpu)


def mark_word() -> int:
    """What the mark of a CPU begins with that our module has parked, as a word of memory."""
    return stack.mark_word()


def parse_mark(raw: bytes, root: int) -> tuple[int, int] | None:
    """CPU and end of its stack in the mark that it left when root number `root` ended; None for another's."""
    return stack.parse_mark(raw, root)


def registers_note(pid: int, place: Place) -> Note:
    """The note of a core file with the registers of a CPU that was in `place` and ran the task `pid`."""
    return registers.note(pid, place)


def parse_registers(note: Note) -> dict[str, int] | None:
    """What such a note says, by the names in the kernel's struct pt_regs; None for another note."""
    return registers.parse(note)


def elf_machine() -> int:
    """ELF's number of this architecture."""
    return paging.MACHINE


__all__ = [
    "Place",
    "Stacks",
    "Tables",
    "current_task",
    "elf_machine",
    "mark_word",
    "parse_mark",
    "parse_registers",
    "registers_note",
    "stacks",
    "tables",
]
