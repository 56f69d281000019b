# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPU belongs to which root, from the order of events in the trace itself. Pure.

A CPU leaves its root by INIT, or when it switches off its LAPIC and parks. It comes to a root by a startup
IPI: to the new one when the page it names is in the new root's low window, else to the root that sent it. A
parked CPU that is woken through memory switches its LAPIC on again with no startup IPI before: by that it has
come to the other root.
"""

from __future__ import annotations

from collections.abc import Iterable

from multiroot.audit import apic
from multiroot.audit.apic import Delivery, Message
from multiroot.audit.rows import Role, Span
from multiroot.audit.trace import Access

_PAGE = 1 << 12
_OTHER = {Role.OLD: Role.NEW, Role.NEW: Role.OLD}


class Owners:
    """All CPUs start in the old root. `low` is the new root's low window, `logical` is as in `apic`."""

    def __init__(self, cpus: Iterable[int], low: Span, logical: dict[int, int] | None = None) -> None:
        self.role: dict[int, Role | None] = dict.fromkeys(cpus, Role.OLD)
        self.logical = {cpu: (logical or {}).get(cpu, 0) for cpu in self.role}
        self._low = low
        self._high: dict[int, int] = {}
        self._on = set(self.role)
        self._parked: set[int] = set()

    def of(self, cpu: int) -> Role | None:
        """The root that has `cpu`; None between two roots."""
        return self.role.get(cpu)

    def message(self, access: Access) -> Message | None:
        """The interrupt that an access sends, if it sends one."""
        if not access.write:
            return None
        if access.at == apic.ICR_LOW:
            return apic.from_command(access.cpu, self._high.get(access.cpu, 0), access.value, self.logical)
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
        elif access.at == apic.SPURIOUS:
            self._switched(access.cpu, bool(access.value & apic.SPURIOUS_ENABLE))
        elif message and message.delivery is Delivery.INIT:
            for cpu in message.targets:
                self.role[cpu], self.logical[cpu] = None, 0
                self._on.discard(cpu)
                self._parked.discard(cpu)
        elif message and message.delivery is Delivery.STARTUP:
            self._start(access.cpu, message)

    def _start(self, sender: int, message: Message) -> None:
        for cpu in message.targets:
            # The second of two startup IPIs finds the CPU running and does nothing.
            if self.role[cpu] is None:
                in_low = message.vector * _PAGE in self._low
                self.role[cpu] = Role.NEW if in_low else self.of(sender)

    def _switched(self, cpu: int, on: bool) -> None:
        if not on:
            # A kernel that starts writes "off" to a LAPIC that is off already; that is no parking.
            self._parked |= self._on & {cpu}
            self._on.discard(cpu)
            return
        self._on.add(cpu)
        before = self.role.get(cpu)
        if cpu in self._parked and before:
            self.role[cpu] = _OTHER[before]
        self._parked.discard(cpu)
