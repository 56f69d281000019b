# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom an interrupt reaches: xAPIC command register and MSI addresses. Pure.

Source: Intel SDM volume 3, the APIC: interprocessor interrupts and message signalled interrupts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

BASE = 0xFEE0_0000
ICR_LOW = BASE + 0x300
ICR_HIGH = BASE + 0x310
END_OF_INTERRUPT = BASE + 0xB0
LOGICAL_DESTINATION = BASE + 0xD0
TIMER_COUNT = BASE + 0x380
BROADCAST = 0xFF


class Delivery(IntEnum):
    FIXED = 0
    LOWEST = 1
    SMI = 2
    RESERVED = 3
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


@dataclass(frozen=True)
class Message:
    """An interrupt on its way; `targets` are APIC ids."""

    delivery: Delivery
    vector: int
    targets: tuple[int, ...]


def from_command(sender: int, high: int, low: int, logical: Mapping[int, int]) -> Message | None:
    """What a write to the ICR sends; None for an INIT level de-assert, which reaches nobody.

    `logical` has every CPU of the machine: its APIC id and its 8-bit flat logical id (0: none).
    """
    delivery = Delivery(low >> 8 & 7)
    if delivery is Delivery.INIT and not low & 1 << 14:
        return None
    shorthand = low >> 18 & 3
    if shorthand:
        everyone = {1: [sender], 2: list(logical), 3: [cpu for cpu in logical if cpu != sender]}
        return Message(delivery, low & 0xFF, tuple(everyone[shorthand]))
    return Message(delivery, low & 0xFF, _reached(high >> 24 & 0xFF, bool(low & 1 << 11), logical))


def has_shorthand(low: int) -> bool:
    """Whether a command names its targets without the destination register."""
    return bool(low >> 18 & 3)


def from_msi(address: int, data: int, logical: Mapping[int, int]) -> Message:
    """What a write of `data` to an MSI `address` sends."""
    targets = _reached(address >> 12 & 0xFF, bool(address & 1 << 2), logical)
    return Message(Delivery(data >> 8 & 7), data & 0xFF, targets)


def _reached(destination: int, is_logical: bool, logical: Mapping[int, int]) -> tuple[int, ...]:
    if is_logical:
        return tuple(cpu for cpu, bits in logical.items() if bits & destination)
    if destination == BROADCAST:
        return tuple(logical)
    return (destination,) if destination in logical else ()
