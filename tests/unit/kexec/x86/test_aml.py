# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.kexec.x86 import aml


@given(st.integers(0, (1 << 64) - 1))
def test_integers_are_shortest_and_right(value: int) -> None:
    code = aml.integer(value)
    if value < 2:
        assert code == bytes([value])
        return
    size = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}[code[0]]
    assert int.from_bytes(code[1:], "little") == value
    assert len(code) == 1 + size
    assert size == 1 or value >= 1 << 4 * size


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_integers_out_of_range(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        aml.integer(value)


@given(st.integers(0, 5000))
def test_package_lengths_count_themselves(size: int) -> None:
    """Decode the length as 20.2.4 says: two bits count the bytes that follow, the rest is the number."""
    code = aml.scope("\\_SB", bytes(size))[1:]
    extra = code[0] >> 6
    length = code[0] & (0x0F if extra else 0x3F)
    for i in range(extra):
        length |= code[1 + i] << (4 + 8 * i)
    assert length == len(code)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("_HID", b"_HID"),
        ("AB", b"AB__"),
        ("\\_SB", b"\\_SB_"),
        ("\\_SB.UAR0", b"\\\x2e_SB_UAR0"),
        ("A.B.C", b"\x2f\x03A___B___C___"),
    ],
)
def test_names(path: str, code: bytes) -> None:
    assert aml.name_string(path) == code


@pytest.mark.parametrize("path", ["", "lower", "TOOLONG", "1ABC", "A..B"])
def test_bad_names(path: str) -> None:
    with pytest.raises(ValueError, match="not an ACPI name"):
        aml.name_string(path)


def test_eisa_ids() -> None:
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c41d00501")
    with pytest.raises(ValueError, match="not an EISA id"):
        aml.eisa_id("ACPI0012")


def test_strings_can_not_hold_nul() -> None:
    with pytest.raises(ValueError, match="NUL"):
        aml.string("a\0b")


def test_resource_templates_end_with_their_tag() -> None:
    code = aml.resource_template(aml.io_ports(0x3F8, 8))
    assert code == bytes.fromhex("110d 0a0a 4701 f803 f803 0108 7900")
