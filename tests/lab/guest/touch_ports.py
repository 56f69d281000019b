# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs inside a root: python3 -c THIS PORT=VALUE...: writes to I/O ports, all numbers hexadecimal.

Debian's cloud kernels have no /dev/port.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

# mov %edi,%edx; mov %esi,%eax; out %al,(%dx); ret
OUT = bytes.fromhex("89fa89f0eec3")


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(OUT)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    out = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint)(address)
    for word in sys.argv[1:]:
        port, value = (int(part, 16) for part in word.split("="))
        if libc.ioperm(port, 1, 1):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        out(port, value)


if __name__ == "__main__":
    main()
