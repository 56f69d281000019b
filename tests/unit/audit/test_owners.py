# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom interrupts reach, and which CPU is whose at every moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.audit import apic
from multiroot.audit.apic import Delivery, Message
from multiroot.audit.owners import Owners
from multiroot.audit.rows import Role, Span
from multiroot.audit.trace import Access

CPUS = range(4)
LOGICAL = dict.fromkeys(CPUS, 0)
LOW = Span(0x20000, 0x3FFFF)
INIT, STARTUP = 0xC500, 0x4600
PARK = 0x14  # page in the ledger


def write(cpu: int, at: int, value: int) -> Access:
    return Access(cpu, True, at, value, 4, "apic-msi")


def send(owners: Owners, cpu: int, target: int, low: int) -> None:
    for access in (write(cpu, apic.ICR_HIGH, target << 24), write(cpu, apic.ICR_LOW, low)):
        owners.follow(access, owners.message(access))


def launched() -> Owners:
    """As the lab's launch does it: CPUs 2 and 3 granted, 2 started by the old root, 3 by the new one."""
    owners = Owners(CPUS, LOW)
    for cpu in (2, 3):
        send(owners, 0, cpu, INIT)
        send(owners, 0, cpu, 0x8500)
        send(owners, 0, cpu, STARTUP | PARK)
        send(owners, 0, cpu, STARTUP | PARK)
    assert [owners.of(cpu) for cpu in CPUS] == [Role.OLD, Role.OLD, None, None]
    send(owners, 0, 2, INIT)
    send(owners, 0, 2, STARTUP | 0x20)
    send(owners, 0, 2, STARTUP | 0x20)
    send(owners, 2, 3, INIT)
    send(owners, 2, 3, STARTUP | 0x3A)
    return owners


def test_a_launch() -> None:
    assert [launched().of(cpu) for cpu in CPUS] == [Role.OLD, Role.OLD, Role.NEW, Role.NEW]


def test_a_release_and_the_cpu_online_again_in_the_old_root() -> None:
    owners = launched()
    send(owners, 1, 2, INIT)
    assert owners.of(2) is None
    send(owners, 0, 2, STARTUP | 0x99)
    assert owners.of(2) is Role.OLD


def test_a_released_cpu_waits_in_the_park_until_the_old_root_wakes_it() -> None:
    owners = launched()
    send(owners, 1, 2, INIT)
    send(owners, 1, 2, STARTUP | PARK)
    assert owners.of(2) is None
    owners.wake(write(2, apic.BASE + 0xF0, 0))
    assert owners.of(2) is Role.OLD


def test_a_cpu_that_was_offline_in_the_old_root_is_parked_by_the_new_one() -> None:
    owners = launched()
    owners.role[1] = None
    owners.end_old_root()
    send(owners, 2, 1, INIT)
    send(owners, 2, 1, STARTUP | PARK)
    owners.wake(write(1, apic.BASE + 0xF0, 0))
    assert owners.of(1) is Role.NEW


def test_a_cpu_that_parked_is_nobodys_until_it_uses_its_lapic_again() -> None:
    owners = launched()
    owners.end_old_root()
    assert [owners.of(cpu) for cpu in CPUS] == [None, None, Role.NEW, Role.NEW]
    for at in (0x80, apic.END_OF_INTERRUPT, apic.TIMER_COUNT, apic.ICR_LOW):
        owners.wake(write(0, at, 0))
    assert owners.of(0) is None
    owners.wake(Access(0, False, apic.BASE + 0xF0, 0xFF, 4, "apic-msi"))
    assert [owners.of(cpu) for cpu in CPUS] == [Role.NEW, None, Role.NEW, Role.NEW]


def test_a_parked_cpu_may_also_be_started_by_init() -> None:
    owners = launched()
    owners.end_old_root()
    send(owners, 2, 1, INIT)
    owners.wake(write(1, apic.ICR_HIGH, 0))
    assert owners.of(1) is None
    send(owners, 2, 1, STARTUP | 0x3A)
    assert owners.of(1) is Role.NEW


def test_reading_the_lapic_changes_nothing() -> None:
    owners = launched()
    read = Access(2, False, apic.ICR_LOW, INIT, 4, "apic-msi")
    assert owners.message(read) is None
    owners.follow(read, None)
    assert owners.of(2) is Role.NEW


def test_each_sender_has_its_own_destination_register() -> None:
    owners = Owners(CPUS, LOW)
    for cpu, target in ((0, 3), (1, 2)):
        owners.follow(write(cpu, apic.ICR_HIGH, target << 24), None)
    assert owners.message(write(0, apic.ICR_LOW, 0xFD)) == Message(Delivery.FIXED, 0xFD, (3,))
    assert owners.message(write(1, apic.ICR_LOW, 0xFD)) == Message(Delivery.FIXED, 0xFD, (2,))


def test_half_a_command_from_before_the_trace_is_not_guessed_at() -> None:
    owners = Owners(CPUS, LOW)
    owners.follow(write(0, apic.ICR_HIGH, 3 << 24), None)
    owners.begin()
    assert owners.message(write(0, apic.ICR_LOW, 0xFD)) is None
    assert owners.message(write(0, apic.ICR_LOW, 0xC00FD)) == Message(Delivery.FIXED, 0xFD, (1, 2, 3))
    owners.follow(write(0, apic.ICR_HIGH, 2 << 24), None)
    assert owners.message(write(0, apic.ICR_LOW, 0xFD)) == Message(Delivery.FIXED, 0xFD, (2,))


def test_init_forgets_the_logical_id() -> None:
    owners = Owners(CPUS, LOW, {0: 1, 1: 2, 2: 4, 3: 8})
    send(owners, 0, 2, INIT)
    assert owners.logical == {0: 1, 1: 2, 2: 0, 3: 8}
    owners.follow(write(2, apic.LOGICAL_DESTINATION, 0x1000000), None)
    assert owners.logical[2] == 1


@pytest.mark.parametrize(
    ("low", "targets"),
    [(0x40000, (1,)), (0x80000, (0, 1, 2, 3)), (0xC0000, (0, 2, 3)), (0, (2,))],
)
def test_shorthands(low: int, targets: tuple[int, ...]) -> None:
    message = apic.from_command(1, 2 << 24, low | 0xFB, LOGICAL)
    assert message == Message(Delivery.FIXED, 0xFB, targets)


@given(st.integers(0, 255))
def test_logical_destinations_reach_those_whose_bits_they_name(mask: int) -> None:
    ids = {0: 1, 1: 2, 2: 1, 3: 0}
    message = apic.from_command(0, mask << 24, 0x800 | 0xFD, ids)
    assert message is not None
    assert set(message.targets) == {cpu for cpu, bits in ids.items() if bits & mask}


@given(st.integers(0, 255), st.integers(0, 255))
def test_msi_names_its_destination_in_the_address(destination: int, vector: int) -> None:
    message = apic.from_msi(apic.BASE | destination << 12, vector, LOGICAL)
    expected = tuple(CPUS) if destination == 0xFF else (destination,) if destination in LOGICAL else ()
    assert message == Message(Delivery.FIXED, vector, expected)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1), st.integers(0, 3))
def test_any_command_reaches_only_cpus_there_are(high: int, low: int, sender: int) -> None:
    message = apic.from_command(sender, high, low, LOGICAL)
    assert message is None or set(message.targets) <= set(CPUS)
