# SPDX-License-Identifier: GPL-2.0-or-later
"""Taint flags are named as the kernel's own tool does it, and laid at the door of modules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiroot.verdict.taint import flags, told


def test_flags_of_our_module_are_no_trouble() -> None:
    found = flags(1 << 12 | 1 << 13, {"multiroot": "OE", "frob": "O", "ext4": ""})
    assert [str(each) for each in found] == [
        "O (OOT_MODULE by frob, multiroot)",
        "E (UNSIGNED_MODULE by multiroot)",
    ]
    assert not any(each.trouble for each in found)


def test_a_warning_and_a_crash_are() -> None:
    assert [each.letter for each in flags(1 << 9 | 1 << 7) if each.trouble] == ["D", "W"]


def test_a_flag_of_a_later_kernel_is_told_of() -> None:
    assert [each.letter for each in flags(1 << 40)] == ["?"]


def test_both_ways_of_printing() -> None:
    old = "CPU: 1 PID: 77 Comm: frob er Tainted: G        W  O       6.1.0 #1"
    assert [each.letter for each in told(old)] == ["W", "O"]
    assert told("CPU: 1 PID: 77 Comm: x Not tainted 6.1.0 #1") == ()
    assert told("Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE") == ()


@given(st.integers(0, (1 << 20) - 1))
def test_every_bit_is_one_flag(number: int) -> None:
    assert len(flags(number)) == number.bit_count()
    assert all(each.name != "UNKNOWN" for each in flags(number))
