# SPDX-License-Identifier: GPL-2.0-or-later
"""A program for a root that sends INIT to CPUs, given by hardware id: they stop where they are.

It writes to the local APIC of the CPU that it runs on, which the kernel allows with `iomem=relaxed`. An
order has two halves, the target and what is to be done. An INIT would go to another CPU, maybe of this very
root, if the program went to another CPU in between, or if the kernel gave an order of its own. So it stays
where it is, before all others, and looks at the first half once more before it writes the second.
"""

STOP_CPUS = """
import mmap, os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
page = mmap.mmap(os.open("/dev/mem", os.O_RDWR | os.O_SYNC), 4096, offset=0xFEE00000)
apic = memoryview(page).cast("I")
TARGET, ORDER = 0x310 // 4, 0x300 // 4

def send(target, order):
    apic[TARGET] = target
    while apic[TARGET] != target:
        apic[TARGET] = target
    apic[ORDER] = order

for number in map(int, sys.argv[1:]):
    send(number << 24, 0xC500)
    time.sleep(0.05)
    send(number << 24, 0x8500)
"""
