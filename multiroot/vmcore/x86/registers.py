# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers of a CPU, as core files have them (struct elf_prstatus in include/linux/elfcore.h)."""

from __future__ import annotations

import struct

from multiroot.vmcore.core_file import Note
from multiroot.vmcore.x86.stack import Place

_PRSTATUS = 1  # NT_PRSTATUS
_SIZE = 336
_PID_AT, _REGISTERS_AT = 32, 112
# Of struct user_regs_struct.
_IP, _CS, _FLAGS, _SP, _SS = 16, 17, 18, 19, 20
_KERNEL_CODE, _KERNEL_DATA = 0x10, 0x18


def note(pid: int, place: Place) -> Note:
    """Of a CPU in the kernel. Where a call returns to, the instruction before is told: what comes behind a
    call that does not return is another function.
    """
    data = bytearray(_SIZE)
    struct.pack_into("<I", data, _PID_AT, pid)
    values = {
        _IP: place.address if place.sure else place.address - 1,
        _CS: _KERNEL_CODE,
        _FLAGS: 2,
        _SP: place.stack,
        _SS: _KERNEL_DATA,
    }
    for number, value in values.items():
        struct.pack_into("<Q", data, _REGISTERS_AT + 8 * number, value)
    return Note(b"CORE\0", _PRSTATUS, bytes(data))


def parse(found: Note) -> dict[str, int] | None:
    """The members of struct pt_regs that are known, by the note of a CPU; None for another note."""
    if found.kind != _PRSTATUS or len(found.data) != _SIZE:
        return None
    members = {"ip": _IP, "cs": _CS, "flags": _FLAGS, "sp": _SP, "ss": _SS}
    return {
        name: int(struct.unpack_from("<Q", found.data, _REGISTERS_AT + 8 * number)[0])
        for name, number in members.items()
    }
