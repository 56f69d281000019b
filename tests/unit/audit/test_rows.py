# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows as they are in the source tree, and what makes a bad file."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.audit import rows
from multiroot.audit.rows import Owner, Phase, Rows, Span, lookup_at, lookup_msr
from multiroot.errors import BadRequestError
from multiroot.lab import recipes

# Point 8 of the update's requirements: no piece of global state may be forgotten.
WANTED = (
    "PIT,PIC,IOAPIC,LAPIC,HPET,RTC,CMOS,PM timer,SCI,PCI config ports,ECAM,IOMMU,MTRR,PAT,microcode,MSRs,NMI,"
    "SMI,machine checks,TSC,0x61,0x64,CF9,ACPI tables"
)

GOOD = """
[[row]]
id = "pit"
name = "PIT"
at = ["0x40-0x43"]
owner = { launch = "old", both = "old", handoff = "old", retire = "old", after = "new" }
passes = "-"
enforced = "-"
trusted = "-"
"""


@pytest.fixture(scope="module")
def real() -> Rows:
    return rows.load()


def test_every_wanted_piece_of_state_has_a_row(real: Rows) -> None:
    names = " ".join(row.name for row in real.row)
    assert [word for word in WANTED.split(",") if word not in names] == []


def test_every_port_and_address_is_in_some_row(real: Rows) -> None:
    find = lookup_at(real)
    assert all(find(at) is not None for at in (0, 0xFFFF, 0x10000, 0xFEE0_0000, (1 << 64) - 1))


@pytest.mark.parametrize(
    ("at", "name"),
    [
        (0x43, "pit"),
        (0xCF8, "pciconf"),
        (0xCF9, "reset"),
        (0xCFC, "pciconf"),
        (0xFEE0_00B0, "lapic"),
        (0xFEE0_0300, "ipi"),
        (0xFEE0_0350, "pic"),
        (0xFEE0_0360, "nmi"),
        (0xFEE0_0000, "interrupts"),
        (0xFEE0_300C, "interrupts"),
        (0x402, "other"),
    ],
)
def test_the_narrowest_range_wins(real: Rows, at: int, name: str) -> None:
    row = lookup_at(real)(at)
    assert row is not None
    assert row.id == name


def test_msrs_of_no_row_are_the_cpus_own(real: Rows) -> None:
    assert lookup_msr(real)(0xC000_0082) is None
    found = lookup_msr(real)(0x10)
    assert found is not None
    assert found.id == "tsc"


def test_a_root_that_is_not_the_owner_may_do_little_while_two_live(real: Rows) -> None:
    late = [
        (row.id, str(allow.at))
        for row in real.row
        for allow in row.allow
        if set(allow.phases) - {Phase.LAUNCH, Phase.AFTER} and row.owner[Phase.BOTH] is not Owner.EACH
    ]
    assert set(late) == {("pic", "0xfee00350"), ("nmi", "0xfee00360")}


def test_a_good_file(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).row[0].at == (Span(0x40, 0x43),)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('after = "new"', 'later = "new"', "later"),
        (', after = "new"', "", "row pit has no owner in after"),
        ('"0x40-0x43"', '"0x43-0x40"', "ends before it begins"),
        ('"0x40-0x43"', '"64"', "not a range"),
        ('at = ["0x40-0x43"]\n', "", "nothing would be seen of row pit"),
        ('passes = "-"', 'passes = "-"\nselector = "0x40"', "selector or data"),
        ('passes = "-"', 'passes = ""', "passes"),
        ('passes = "-"\n', "", "passes"),
        (GOOD, GOOD + GOOD, "the same id"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        read(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ('at = "0x61", access = "r"', "allows 0x61, which is not in it"),
        ('at = "0x43", access = "w", value = "0xff/0x0f"', "can match nothing"),
        ('at = "0x43", access = "w", value = "1"', "not VALUE/MASK"),
        ('at = "0x43", access = "x"', "access"),
    ],
)
def test_a_bad_allowance_is_refused(tmp_path: Path, field: str, says: str) -> None:
    allow = f'allow = [{{ root = "new", phases = ["launch"], {field}, why = "so" }}]\n'
    with pytest.raises(BadRequestError, match=says):
        read(tmp_path, GOOD + allow)


def read(folder: Path, text: str) -> Rows:
    path = folder / "rows.toml"
    path.write_text(text)
    return recipes.read(path, Rows)
