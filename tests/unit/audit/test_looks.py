# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between looks at the roots, and what may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiroot.audit.judge import Doorbell
from multiroot.audit.looks import Look, differences, doorbells
from multiroot.audit.rows import Role

MSRS = {0x200: 0xC000_0000, 0x250: 0x0606, 0x2FF: 0xC06, 0x277: 0x0407_0506, 0x8B: 0x1 << 32}
BEFORE = Look(dict.fromkeys(range(4), MSRS), {"DSDT": "aa", "FACP": "bb"}, "tsc", ())
OLD = replace(BEFORE, msrs={0: MSRS, 1: MSRS}, doorbells=((1, 0, 0x21), (2, 2, 0x20)))
NEW = replace(OLD, acpi={"DSDT": "cc", "FACP": "dd"})


@pytest.mark.parametrize("compare", ["msrs", "microcode", "acpi", "clock"])
def test_roots_that_are_as_they_should_be(compare: str) -> None:
    assert differences(compare, BEFORE, OLD, NEW) == []


@pytest.mark.parametrize(
    ("msr", "compare", "other"),
    [(0x277, "msrs", "microcode"), (0x250, "msrs", "microcode"), (0x8B, "microcode", "msrs")],
)
def test_an_msr_that_differs_is_named(msr: int, compare: str, other: str) -> None:
    odd = replace(NEW, msrs={0: MSRS, 1: {**MSRS, msr: 7}})
    (found,) = differences(compare, BEFORE, OLD, odd)
    assert f"MSR {msr:#x}" in found
    assert found.endswith("but 0x7 on CPU 1 (new)")
    assert differences(other, BEFORE, OLD, odd) == []


def test_mtrrs_that_init_cleared_are_left_out_but_pat_is_not() -> None:
    none = {0x200: 0, 0x250: 0, 0x2FF: 0, 0x277: MSRS[0x277], 0x8B: MSRS[0x8B]}
    assert differences("msrs", BEFORE, OLD, replace(NEW, msrs={0: none})) == []
    assert differences("msrs", BEFORE, OLD, replace(NEW, msrs={0: {**none, 0x277: 1}})) != []
    assert differences("msrs", BEFORE, OLD, replace(NEW, msrs={0: {**none, 0x2FF: 0xC00}})) != []


def test_a_root_whose_msrs_cannot_be_read_does_not_pass() -> None:
    assert differences("msrs", BEFORE, OLD, replace(NEW, msrs={})) == ["no MSR could be read in the new root"]


def test_tables_must_stay_and_must_not_be_shared() -> None:
    changed = replace(OLD, acpi={**OLD.acpi, "DSDT": "ee"})
    assert differences("acpi", BEFORE, changed, NEW) == ["table DSDT of the old root changed"]
    shared = replace(NEW, acpi={"DSDT": "cc", "SSDT1": "bb"})
    assert differences("acpi", BEFORE, OLD, shared) == ["the new root has the firmware's table SSDT1"]


def test_every_root_must_count_time_by_the_tsc() -> None:
    assert differences("clock", BEFORE, OLD, replace(NEW, clock="refined-jiffies")) == [
        "the new root's clock source is refined-jiffies"
    ]


def test_kvms_clock_is_of_the_tsc() -> None:
    old, new = (replace(root, clock="kvm-clock") for root in (OLD, NEW))
    assert differences("clock", BEFORE, old, new) == []


def test_doorbells_are_by_role() -> None:
    assert doorbells(OLD, 2) == (Doorbell(Role.OLD, 0, 0x21), Doorbell(Role.NEW, 2, 0x20))


def test_json_of_the_probe() -> None:
    data = {
        "msrs": {"0": {"0x2ff": 3078}},
        "acpi": {"DSDT": "aa"},
        "clock": "tsc",
        "doorbells": [{"root": 2, "apic_id": 2, "vector": 32}],
    }
    assert Look.from_json(data) == Look({0: {0x2FF: 0xC06}}, {"DSDT": "aa"}, "tsc", ((2, 2, 32),))
