# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's main thread asks of the kernel while a virtual CPU waits for it. Pure.

QEMU: system/cpus.c, vm_prepare_start(): the devices are told first. Kernel: include/uapi/linux/{kvm,vhost}.h.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multiroot.bench.results.trace_lines import Event

MAIN = "qemu-system"  # how its name begins, and no other thread's of it
# Events to switch on, as folders of tracefs. Not every kernel has them.
EVENTS = ("syscalls/sys_enter_ioctl", "syscalls/sys_exit_ioctl")
FILTERS = dict.fromkeys(EVENTS, f'comm ~ "{MAIN}*"')

# Requests by type and number, and the types of those that have no name here.
_NAMES = {
    0xAE67: "KVM_IRQ_LINE_STATUS",
    0xAE6A: "KVM_SET_GSI_ROUTING",
    0xAE76: "KVM_IRQFD",
    0xAE79: "KVM_IOEVENTFD",
    0xAE7B: "KVM_SET_CLOCK",
    0xAE7C: "KVM_GET_CLOCK",
    0xAEA5: "KVM_SIGNAL_MSI",
}
_TYPES = {0xAE: "KVM", 0xAF: "vhost", 0x54: "a tap"}
_REQUEST = re.compile(r"cmd: ([0-9a-f]+)")


@dataclass(frozen=True)
class Call:
    """Moments in ns on the machine-wide clock."""

    name: str
    start_ns: int
    end_ns: int


def calls(events: Sequence[Event]) -> list[Call]:
    """Those of main threads that have ended, the earliest first."""
    found = []
    begun: dict[int, tuple[str, int]] = {}
    for event in events:
        if event.name != "sys_ioctl":
            continue
        if request := _REQUEST.search(event.rest):
            begun[event.task] = (_name(int(request[1], 16)), event.at_ns)
        elif event.task in begun:
            name, start_ns = begun.pop(event.task)
            found.append(Call(name, start_ns, event.at_ns))
    return found


def told_apart(doing: str, start_ns: int, length: int, found: Iterable[Call]) -> list[tuple[str, int, int]]:
    """Time in which a virtual CPU waited, with the main thread's calls in it: what, since when, how long."""
    parts = []
    since, end_ns = start_ns, start_ns + length
    for call in found:
        begin, end = max(call.start_ns, since), min(call.end_ns, end_ns)
        if begin < end:
            parts += [(doing, since, begin - since), (f"{doing}: {call.name}", begin, end - begin)]
            since = end
    return [part for part in [*parts, (doing, since, end_ns - since)] if part[2]]


def _name(request: int) -> str:
    """Of a request as include/uapi/asm-generic/ioctl.h puts it together."""
    kind, number = request >> 8 & 0xFF, request & 0xFF
    return _NAMES.get(kind << 8 | number) or f"{_TYPES.get(kind, f'{kind:#x}')} request {number:#04x}"
