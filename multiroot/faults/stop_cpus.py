# SPDX-License-Identifier: GPL-2.0-or-later
"""A program for a root that sends INIT to CPUs, given by hardware id: they stop where they are.

It writes to the local APIC of the CPU that it runs on, which the kernel allows with `iomem=relaxed`.
"""

STOP_CPUS = """
import mmap, os, struct, sys, time
apic = mmap.mmap(os.open("/dev/mem", os.O_RDWR | os.O_SYNC), 4096, offset=0xFEE00000)
for target in map(int, sys.argv[1:]):
    apic[0x310:0x314] = struct.pack("<I", target << 24)
    apic[0x300:0x304] = struct.pack("<I", 0xC500)
    time.sleep(0.05)
    apic[0x310:0x314] = struct.pack("<I", target << 24)
    apic[0x300:0x304] = struct.pack("<I", 0x8500)
"""
