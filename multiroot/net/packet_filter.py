# SPDX-License-Identifier: GPL-2.0-or-later
"""Which packets a socket gets at all: the kernel's classic filter (Documentation/networking/filter.rst)."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
# One instruction, as in linux/filter.h: code, how far to jump if true and if false, operand.
Step = tuple[int, int, int, int]


def attach_filter(sock: socket.socket, steps: tuple[Step, ...]) -> None:
    """Let only those in that this program takes; all if there is none. Raises OSError."""
    if not steps:
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
