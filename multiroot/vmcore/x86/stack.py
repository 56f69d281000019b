# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies on a kernel's stack, without debug information.

Kernels keep no frame pointers. Taken for a place in a trace is each word that leads behind a call in the
kernel's code; some may be left over from calls that returned long ago. What an interrupt has pushed is sure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from multiroot.units import KIB, PAGE
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.kallsyms import Symbols
from multiroot.vmcore.space import Space, UnmappedError, word

_MARK: int = struct.unpack("<Q", b"MRPARKED")[0]  # struct mr_park_mark in csrc/kmod/core/x86/park.c
_MARK_FIELDS = struct.Struct("<QQIIQ")
STACK = 16 * KIB  # and of the same alignment, if it is a task's
# What lies between a task's registers and the end of its stack's memory; the second with CONFIG_X86_FRED.
_PADDINGS = (0, 16)
_KERNEL = 1 << 63
_KERNEL_CODE, _KERNEL_DATA, _USER_CODE = 0x10, 0x18, 0x33  # cs and ss in an interrupt's frame
# Modules' code comes behind the room for the kernel's image (Documentation/arch/x86/x86_64/mm.rst).
_IMAGE, _IMAGE_SIZE, _MODULES_END = 0xFFFF_FFFF_8000_0000, 512 << 20, 0xFFFF_FFFF_FF00_0000
_FRAMES_MOST = 64
_STACKS_MOST = 4  # a task's, interrupts', an NMI's
_CPUS_MOST = 4096


@dataclass(frozen=True)
class Place:
    """A line of a trace: code at `address`, which had the end of its stack at `stack`. `sure`: an interrupt
    has written it down.
    """

    address: int
    stack: int
    sure: bool


def mark_word() -> int:
    """What the mark of a CPU begins with that our module has parked."""
    return _MARK


def parse_mark(raw: bytes, root: int) -> tuple[int, int] | None:
    """CPU and end of its stack in the mark that it left when root number `root` ended; None for another's."""
    if len(raw) < _MARK_FIELDS.size:
        return None
    magic, stack, owner, cpu, _ = _MARK_FIELDS.unpack_from(raw)
    if magic != _MARK or owner != root or cpu >= _CPUS_MOST or stack < _KERNEL:
        return None
    return cpu, stack


class Stacks:
    """Traces of one kernel."""

    def __init__(self, space: Space, info: VmcoreInfo, symbols: Symbols) -> None:
        self._space = space
        self._symbols = symbols
        self._text = (info.symbols.get("_stext", 0), symbols.by_name.get("_etext", 0))
        self._modules = _IMAGE + info.numbers.get("KERNEL_IMAGE_SIZE", _IMAGE_SIZE)

    def cpus(self) -> list[int]:
        """The CPUs that are online. Raises UnmappedError."""
        mask = self._symbols.by_name.get("__cpu_online_mask")
        if mask is None:
            raise UnmappedError("the kernel does not say which CPUs it has")
        bits = int.from_bytes(self._space.read(mask, 8), "little")
        return [number for number in range(64) if bits >> number & 1]

    def of_task(self, cpu: int) -> int:
        """Where the stack begins of the task that a CPU runs: how far it reaches nobody knows."""
        names = self._symbols.by_name
        offsets = names.get("__per_cpu_offset")
        if offsets is None:
            raise UnmappedError("the kernel does not say where its CPUs have their variables")
        base = word(self._space, offsets + 8 * cpu)
        if own := names.get("cpu_current_top_of_stack"):
            tops = [word(self._space, (base + own) % (1 << 64))]
        elif hot := names.get("pcpu_hot"):
            # Its first words; only the top of a stack lies like that.
            tops = list(struct.unpack("<8Q", self._space.read((base + hot) % (1 << 64), 64)))
        else:
            tops = []
        for end in (top + padding for padding in _PADDINGS for top in tops):
            if end > _KERNEL and end % STACK == 0:
                return end - STACK
        raise UnmappedError(f"the kernel does not say which stack CPU {cpu} has")

    def trace(self, stack: int) -> list[Place]:
        """From the end of a stack at `stack` to its begin, and on where an interrupt came in."""
        found: list[Place] = []
        seen: set[int] = set()
        for _ in range(_STACKS_MOST):
            if stack < _KERNEL or stack % 8 or stack in seen:
                break
            seen.add(stack)
            places, stack = self._one(stack)
            found += places
        return found[:_FRAMES_MOST]

    def _one(self, stack: int) -> tuple[list[Place], int]:
        """The places on one stack, and where the one before it goes on; 0 if it is the last."""
        words = self._words(stack)
        found: list[Place] = []
        at = 0
        while at < len(words):
            if self._is_frame(words, at):
                onward = words[at + 3]
                found.append(Place(words[at], onward, sure=True))
                if not stack < onward <= stack + 8 * len(words):
                    return found, onward
                at = (onward - stack) // 8
                continue
            if self._returns_to(words[at]):
                found.append(Place(words[at], stack + 8 * at + 8, sure=False))
            at += 1
        # Where it changes over to its own stack, an interrupt puts the old one first.
        last = words[-1] if words else 0
        return found, last if last >= _KERNEL and not self._in_code(last) else 0

    def _words(self, stack: int) -> list[int]:
        """Up to the page behind it that is not there, or the end of a task's stack."""
        raw = b""
        while len(raw) < STACK:
            part = PAGE - (stack + len(raw)) % PAGE
            try:
                raw += self._space.read(stack + len(raw), part)
            except UnmappedError:
                break
            if (stack + len(raw)) % STACK == 0:
                break
        return list(struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8]))

    def _is_frame(self, words: list[int], at: int) -> bool:
        """Whether an interrupt has pushed rip, cs, flags, rsp and ss there, coming out of the kernel."""
        return (
            at + 4 < len(words)
            and words[at + 1] == _KERNEL_CODE
            and words[at + 4] in (0, _KERNEL_DATA)
            and words[at + 3] >= _KERNEL
            and self._in_code(words[at])
        )

    def _in_code(self, address: int) -> bool:
        start, end = self._text
        return start <= address < end or self._modules <= address < _MODULES_END

    def _returns_to(self, address: int) -> bool:
        """Whether a call is in the code before an address."""
        if not self._in_code(address):
            return False
        try:
            code = self._space.read(address - 7, 7)
        except UnmappedError:
            return False
        if code[2] == 0xE8:
            return True
        # FF /2, of 2, 3, 6 or 7 bytes.
        return any(code[-size] == 0xFF and code[1 - size] >> 3 & 7 == 2 for size in (2, 3, 6, 7))


def current_task(space: Space, symbols: Symbols, cpu: int) -> int:
    """Where the struct task_struct is of what a CPU runs. Raises UnmappedError."""
    names = symbols.by_name
    own = names.get("current_task") or names.get("pcpu_hot")
    offsets = names.get("__per_cpu_offset")
    if own is None or offsets is None:
        raise UnmappedError("the kernel does not say what its CPUs run")
    return word(space, (word(space, offsets + 8 * cpu) + own) % (1 << 64))
