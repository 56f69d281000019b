# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPU belongs to which root, from the order of events in the trace itself. Pure.

A CPU leaves its root by INIT. It comes to a root by a startup IPI: to the new one when the page it names is
in the new root's low window, to the park when it is in the ledger, else to the root that sent it. When the
old root has ended, its CPUs are parked. A parked CPU comes to a root, the new one or that which took it to
the park, by memory alone, and the first that is seen of it there is that it uses its LAPIC.
"""

from __future__ import annotations

from collections.abc import Iterable

from multiroot import arch
from multiroot.audit import apic
from multiroot.audit.apic import Delivery, Message
from multiroot.audit.rows import Role, Span
from multiroot.audit.trace import Access

_PAGE = 1 << 12
# Registers that a kernel uses all the time, and not first.
_RUNNING = frozenset({apic.END_OF_INTERRUPT, apic.ICR_LOW, apic.ICR_HIGH, apic.TIMER_COUNT})


class Owners:
    """All CPUs start in the old root. `low` is the new root's low window, `logical` is as in `apic`."""

    def __init__(self, cpus: Iterable[int], low: Span, logical: dict[int, int] | None = None) -> None:
        self.role: dict[int, Role | None] = dict.fromkeys(cpus, Role.OLD)
        self.logical = {cpu: (logical or {}).get(cpu, 0) for cpu in self.role}
        self._low = low
        ledger = arch.current().memory.ledger
        self._ledger = range(ledger.base, ledger.end)
        self._high: dict[int, int] = {}
        self._parked: dict[int, Role | None] = {}

    def of(self, cpu: int) -> Role | None:
        """The root that has `cpu`; None between two roots."""
        return self.role.get(cpu)

    def end_old_root(self) -> None:
        """The old root has ended: its CPUs wait for the new one."""
        gone = [cpu for cpu, role in self.role.items() if role is Role.OLD]
        self._parked = dict.fromkeys([*self._parked, *gone], Role.NEW)
        self.role |= dict.fromkeys(gone, None)

    def begin(self) -> None:
        """A trace begins: what CPUs wrote before is unknown."""
        self._high.clear()

    def wake(self, access: Access) -> None:
        """Call it first with every access: a parked CPU that uses its LAPIC was woken."""
        starts = access.at >> 12 == apic.BASE >> 12 and access.at not in _RUNNING
        if access.cpu in self._parked and starts:
            self.role[access.cpu] = self._parked.pop(access.cpu)

    def message(self, access: Access) -> Message | None:
        """The interrupt that an access sends, if it sends one."""
        if not access.write:
            return None
        if access.at == apic.ICR_LOW:
            high = self._high.get(access.cpu)
            if high is None and not apic.has_shorthand(access.value):
                # The other half was written before the trace began.
                return None
            return apic.from_command(access.cpu, high or 0, access.value, self.logical)
        if apic.BASE + 0xF < access.at < apic.BASE + 0x1000 or access.at >> 20 != apic.BASE >> 20:
            return None
        return apic.from_msi(access.at, access.value, self.logical)

    def follow(self, access: Access, message: Message | None) -> None:
        """Take in what an access changes; call it after `message`, in the order of the trace."""
        if not access.write:
            return
        if access.at == apic.ICR_HIGH:
            self._high[access.cpu] = access.value
        elif access.at == apic.LOGICAL_DESTINATION:
            self.logical[access.cpu] = access.value >> 24
        elif message and message.delivery is Delivery.INIT:
            for cpu in message.targets:
                self.role[cpu], self.logical[cpu] = None, 0
                self._parked.pop(cpu, None)
        elif message and message.delivery is Delivery.STARTUP:
            self._start(access.cpu, message)

    def _start(self, sender: int, message: Message) -> None:
        page = message.vector * _PAGE
        for cpu in message.targets:
            # The second of two startup IPIs finds the CPU running and does nothing.
            if self.role[cpu] is not None or cpu in self._parked:
                continue
            if page in self._ledger:
                self._parked[cpu] = self.of(sender)
            else:
                self.role[cpu] = Role.NEW if page in self._low else self.of(sender)
