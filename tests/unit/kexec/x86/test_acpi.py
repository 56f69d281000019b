# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.kexec.x86 import acpi
from multiroot.kexec.x86.acpi import ForeignBsp, Hardware, foreign_bsp
from multiroot.lab import lab
from multiroot.lab.build import emulator_artifact
from multiroot.phases import Phases
from multiroot.ranges import Range

from .walker import Memory, acpi_tables, madt_entries

AREA = Range(0x1_4001_0000, 0x10000)
PMEM = (Range(0x1_0000_0000, 384 << 20), Range(0x1_8000_0000, 512 << 20))


def hardware(
    apic_ids: tuple[int, ...] = (2, 3),
    boot: int = 0,
    pmem: tuple[Range, ...] = PMEM,
    rule: ForeignBsp = ForeignBsp.FIRST_IS_SET_ASIDE,
) -> Hardware:
    return Hardware(apic_ids, boot, 0x22000, pmem, rule)


LATER = replace(hardware(), root=2, ledger_cpus=0x11000, later_apic_ids=(0, 1))


def lapics(spec: Hardware) -> list[int]:
    """APIC ids in the MADT, in order, of both kinds of structure."""
    ids = []
    for kind, body in madt_entries(acpi.madt(spec)):
        if kind == 0:
            assert body[2] & 1
            ids.append(body[1])
        elif kind == 9:
            ids.append(struct.unpack_from("<I", body, 2)[0])
    return ids


def test_the_rule_changed_in_6_9() -> None:
    assert foreign_bsp((6, 8)) is ForeignBsp.UNCHECKED
    assert foreign_bsp((6, 9)) is foreign_bsp((7, 0)) is ForeignBsp.FIRST_IS_SET_ASIDE


@pytest.mark.parametrize(
    ("apic_ids", "boot", "rule", "expected"),
    [
        ((2, 3), 0, ForeignBsp.UNCHECKED, [2, 3]),
        ((2, 3), 0, ForeignBsp.FIRST_IS_SET_ASIDE, [0, 2, 3]),
        ((3, 0), 0, ForeignBsp.FIRST_IS_SET_ASIDE, [254, 3, 0]),  # the real boot CPU, adopted later
        ((0, 1), 0, ForeignBsp.FIRST_IS_SET_ASIDE, [0, 1]),  # it starts on the real one
        ((254, 300), 0, ForeignBsp.UNCHECKED, [254, 300]),
        ((255,), 0, ForeignBsp.UNCHECKED, [255]),
    ],
)
def test_which_cpus_are_listed(
    apic_ids: tuple[int, ...], boot: int, rule: ForeignBsp, expected: list[int]
) -> None:
    assert lapics(hardware(apic_ids, boot, rule=rule)) == expected


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=300, unique=True), st.integers(0, 300))
def test_own_cpus_are_listed_once_and_in_order(apic_ids: list[int], boot: int) -> None:
    listed = lapics(hardware(tuple(apic_ids), boot))
    if listed[0] != apic_ids[0]:
        assert listed.pop(0) not in apic_ids
    assert listed == apic_ids


def test_ids_beyond_254_get_an_x2apic_structure() -> None:
    kinds = [kind for kind, _ in madt_entries(acpi.madt(hardware((254, 255), rule=ForeignBsp.UNCHECKED)))]
    assert kinds == [0, 9, 1]


def test_the_ioapic_is_the_given_page() -> None:
    (ioapic,) = [body for kind, body in madt_entries(acpi.madt(hardware())) if kind == 1]
    assert struct.unpack("<BxII", ioapic) == (acpi.IOAPIC_ID, 0x22000, 0)


def test_tables_hang_together() -> None:
    tables = acpi_tables(Memory({AREA.base: acpi.build(hardware(), AREA)}), AREA.base)
    assert sorted(tables) == ["APIC", "DSDT", "FACP", "NFIT", "XSDT"]
    facp = tables["FACP"].data
    flags, minor = struct.unpack_from("<I", facp, 112)[0], facp[131]
    assert flags == 1 | 1 << 4 | 1 << 5 | 1 << 19 | 1 << 20
    assert struct.unpack_from("<H", facp, 109)[0] == 1 << 2 | 1 << 4 | 1 << 5
    assert (facp[8], len(facp)) == (6, 276)
    assert minor >= 3  # from there on Linux believes in online-capable CPUs
    assert struct.unpack_from("<I", facp, 40)[0] == 0  # no 32-bit DSDT pointer, which could not reach it


def test_no_nfit_without_pmem() -> None:
    tables = acpi_tables(Memory({AREA.base: acpi.build(hardware(pmem=()), AREA)}), AREA.base)
    assert "NFIT" not in tables


def test_tables_of_nodes_are_passed_on_as_they_are() -> None:
    srat = acpi.table(b"SRAT", 3, bytes(12) + bytes([1, 40]).ljust(40, b"\1"))
    tables = acpi_tables(
        Memory({AREA.base: acpi.build(replace(hardware(), node_tables=(srat,)), AREA)}), AREA.base
    )
    assert tables["SRAT"].data == srat


def test_cpus_to_come_are_online_capable_and_nobody_is_set_aside_for_them() -> None:
    found = [(body[1], body[2]) for kind, body in madt_entries(acpi.madt(LATER)) if kind == 0]
    assert found == [(254, 1), (2, 1), (3, 1), (0, 2), (1, 2)]


def test_the_second_serial_port() -> None:
    assert struct.pack("<HH", 0x2F8, 0x2F8) in acpi.dsdt(replace(hardware(), uart=1))


@given(st.lists(st.builds(Range, st.integers(0, 1 << 40), st.integers(1, 1 << 40)), max_size=20))
def test_nfit_lists_every_range(pmem: list[Range]) -> None:
    data = acpi.nfit(pmem)
    found = list(struct.iter_unpack("<HHHHII16sQQQ", data[40:]))
    assert [(entry[7], entry[8]) for entry in found] == [(item.base, item.size) for item in pmem]
    assert [entry[2] for entry in found] == list(range(1, len(pmem) + 1))
    assert all(entry[0] == 0 and entry[1] == 56 and entry[9] == 0x8008 for entry in found)


def test_too_many_cpus_for_the_area() -> None:
    with pytest.raises(BadRequestError, match="do not fit"):
        acpi.build(hardware(tuple(range(1, 400))), Range(AREA.base, 4096))


@pytest.fixture(scope="module")
def iasl() -> list[str]:
    """The command iasl: the host's, or that of the lab's emulator root, which `make test` builds first."""
    if shutil.which("iasl"):
        return ["iasl"]
    phases = Phases("test")
    if not lab.cache(phases).has(emulator_artifact()):
        pytest.skip("no iasl here: neither package acpica-tools nor a lab is installed")
    return lab.tool("iasl", phases)


@pytest.fixture(scope="module")
def disassembly(tmp_path_factory: pytest.TempPathFactory, iasl: list[str]) -> dict[str, str]:
    """What iasl makes of each table."""
    folder: Path = tmp_path_factory.mktemp("acpi")
    tables = acpi_tables(Memory({AREA.base: acpi.build(LATER, AREA)}), AREA.base)
    texts = {}
    for name, table in tables.items():
        (folder / f"{name}.dat").write_bytes(table.data)
        done = subprocess.run(
            [*iasl, "-d", f"{name}.dat"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        texts[name] = (folder / f"{name}.dsl").read_text()
        assert "Invalid" not in texts[name] + done.stderr, done.stderr
        assert "ncorrect checksum" not in texts[name] + done.stderr
    return texts


def test_iasl_reads_the_dsdt(disassembly: dict[str, str]) -> None:
    text = " ".join(disassembly["DSDT"].split())
    assert 'Name (_HID, EisaId ("PNP0501")' in text
    assert (
        "IO (Decode16, 0x03F8, // Range Minimum 0x03F8, // Range Maximum 0x01, // Alignment 0x08, // Length"
        in text
    )
    assert 'Name (_HID, "ACPI0012"' in text
    assert text.count("Name (_STA, 0x0F)") == 2
    assert "IRQ" not in text
    assert 'Device (C001) { Name (_HID, "ACPI0007"' in text
    assert "OperationRegion (LEDG, SystemMemory, 0x00011008, 0x02)" in text


def test_iasl_reads_the_other_tables(disassembly: dict[str, str]) -> None:
    def field(table: str, name: str) -> list[str]:
        lines = [line for line in disassembly[table].splitlines() if f" {name} : " in line]
        return [line.rpartition(" : ")[2].strip() for line in lines]

    assert field("FACP", "Hardware Reduced (V5)") == ["1"]
    assert field("FACP", "Use APIC Physical Destination Mode (V4)") == ["1"]
    assert field("FACP", "VGA Not Present (V4)") == ["1"]
    assert field("APIC", "Local Apic ID") == ["FE", "02", "03", "00", "01"]
    assert field("APIC", "PC-AT Compatibility") == ["0"]  # flags are 0: there is no PIC to mask
    assert field("NFIT", "Address Range Base") == ["0000000100000000", "0000000180000000"]
    assert field("NFIT", "Region Type GUID") == ["66F0D379-B4F3-4074-AC43-0D3318B78CDB"] * 2


def test_iasl_compiles_the_dsdt_back(disassembly: dict[str, str], iasl: list[str], tmp_path: Path) -> None:
    """The same AML comes out, so every length and opcode is what the compiler would have written."""
    (tmp_path / "dsdt.dsl").write_text(disassembly["DSDT"])
    done = subprocess.run([*iasl, "dsdt.dsl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (compiled,) = tmp_path.glob("*.aml")
    assert compiled.read_bytes()[36:] == acpi.dsdt(LATER)[36:]
