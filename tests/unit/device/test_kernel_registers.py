# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers of a CPU, in csrc/kmod/core/x86: interrupts to other CPUs, and the end of what it records."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_code import compiled, loaded

APIC_BASE, X2APIC = 0x1B, 0x400
DEBUGCTL, GLOBAL_CTRL, PEBS_ENABLE, RTIT_CTL = 0x1D9, 0x38F, 0x3F1, 0x570
PT, PERFMON, PEBS, BTS = range(1, 5)
VECTOR = 0x41
INIT, NMI, FIXED = 0xC500, 0x4400, 0x4000 | VECTOR


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registers")
    return compiled(folder, "registers.h", "registers_glue.c", "core/x86/apic.c", "core/x86/pmu.c")


@pytest.fixture
def cpu(module: Path, tmp_path: Path) -> ctypes.CDLL:
    return loaded(module, tmp_path)


def msrs(cpu: ctypes.CDLL) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * 0x1000).in_dll(cpu, "msrs")


def sent(cpu: ctypes.CDLL, x2apic: bool) -> list[tuple[int, int]]:
    """Who got which command by now."""
    count = ctypes.c_int.in_dll(cpu, "sent_count").value
    words = (ctypes.c_uint64 * 8).in_dll(cpu, "sent")[:count]
    return [(word >> (32 if x2apic else 56), word & 0xFFFFFFFF) for word in words]


SEND: dict[int, Callable[[ctypes.CDLL, int], None]] = {
    INIT: lambda cpu, to: cpu.mr_ipi_stop(to),
    NMI: lambda cpu, to: cpu.mr_ipi_nmi(to),
    FIXED: lambda cpu, to: cpu.mr_ipi_vector(to, VECTOR),
}


@pytest.mark.parametrize("command", SEND)
@pytest.mark.parametrize(
    ("to", "reached"), [(0, True), (254, True), (255, False), (256, False), (287, False)]
)
def test_in_xapic_mode_a_cpu_without_a_name_gets_nothing(
    cpu: ctypes.CDLL, to: int, reached: bool, command: int
) -> None:
    """The lower 8 bits of its id are CPU 0, whose INIT resets the machine, or another CPU, or all."""
    assert cpu.mr_ipi_init() == 0
    SEND[command](cpu, to)
    assert sent(cpu, False)[:1] == ([(to, command)] if reached else [])


@pytest.mark.parametrize("to", [0, 255, 256, 287])
def test_in_x2apic_mode_every_cpu_has_a_name(cpu: ctypes.CDLL, to: int) -> None:
    msrs(cpu)[APIC_BASE] = X2APIC
    assert cpu.mr_ipi_init() == 0
    cpu.mr_ipi_nmi(to)
    assert sent(cpu, True) == [(to, NMI)]


RECORDS = {PT: RTIT_CTL, PERFMON: GLOBAL_CTRL, PEBS: PEBS_ENABLE, BTS: DEBUGCTL}


@pytest.mark.parametrize("has", [(), (PERFMON,), (PERFMON, PEBS, BTS), (PT, PERFMON, PEBS, BTS)])
def test_a_cpu_that_leaves_its_root_records_nothing_any_more(cpu: ctypes.CDLL, has: tuple[int, ...]) -> None:
    """Samples and traces go to memory of the root that it leaves. What it does not have is not written."""
    features = (ctypes.c_bool * 8).in_dll(cpu, "features")
    for feature, msr in RECORDS.items():
        features[feature] = feature in has
        msrs(cpu)[msr] = 1
    cpu.mr_pmu_leave()
    assert {feature for feature, msr in RECORDS.items() if not msrs(cpu)[msr]} == set(has)


def test_a_register_that_a_hypervisor_does_not_show_does_no_harm(cpu: ctypes.CDLL) -> None:
    for feature, msr in RECORDS.items():
        (ctypes.c_bool * 8).in_dll(cpu, "features")[feature] = True
        msrs(cpu)[msr] = 1
    (ctypes.c_bool * 0x1000).in_dll(cpu, "absent")[GLOBAL_CTRL] = True
    cpu.mr_pmu_leave()
    assert [msrs(cpu)[msr] for msr in RECORDS.values()] == [0, 1, 0, 0]


@pytest.mark.parametrize("has", [(), (PERFMON,), (PT, PERFMON, PEBS, BTS)])
def test_a_cpu_that_is_taken_loses_what_it_records_with(cpu: ctypes.CDLL, has: tuple[int, ...]) -> None:
    """In the order that counts, for code in which a fault is the end: without those that do not answer."""
    for feature in RECORDS:
        (ctypes.c_bool * 8).in_dll(cpu, "features")[feature] = feature in has
    (ctypes.c_bool * 0x1000).in_dll(cpu, "absent")[PEBS_ENABLE] = True
    listed = (ctypes.c_uint32 * 5)(*[7] * 5)
    cpu.mr_pmu_registers(listed)
    found = [msr for feature, msr in RECORDS.items() if feature in has and feature != PEBS]
    assert list(listed) == found + [0] * (5 - len(found))
