# SPDX-License-Identifier: GPL-2.0-or-later
"""Identity and marks are read right from the texts kernels and init scripts write."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import MultirootError
from multiroot.root import identity
from multiroot.root.marks import Marks, parse_marks

IOMEM = """\
00000000-00000fff : Reserved
00001000-0000ffff : System RAM
100000000-17fffffff : System RAM
  122000000-1229fffff : Kernel code
180000000-18fffffff : Persistent Memory (legacy)
  180000000-18fffffff : namespace0.0
"""


def test_memory_lists_top_level_ram_and_pmem_only() -> None:
    assert identity.parse_memory(IOMEM) == (
        identity.Memory(0x1000, 0xF000, "System RAM"),
        identity.Memory(0x100000000, 0x80000000, "System RAM"),
        identity.Memory(0x180000000, 0x10000000, "Persistent Memory (legacy)"),
    )


def test_the_root_number_comes_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("7a0e2c1f-0000-4000-8000-000000000000\n")
    (tmp_path / "cmdline").write_text("quiet multiroot.root=3 console=ttyS0,115200\n")
    assert identity.read_identity(tmp_path).root == 3
    (tmp_path / "cmdline").write_text("quiet\n")
    assert identity.read_identity(tmp_path).root == 1


def test_marks_skip_torn_lines_and_land_on_the_shared_clock(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    path.write_text("userspace 2.51\ninit 3.2\nhalf")
    assert parse_marks(path.read_text()) == [("userspace", 2.51), ("init", 3.2)]
    marks = Marks(time.monotonic_ns, path)
    marks.add("agent")
    found = marks.all()
    assert [mark.name for mark in found] == ["userspace", "init", "agent"]
    assert found[1].at_ns - found[0].at_ns == 690_000_000


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "1.5", "\u0663", "9" * 5000])
def test_a_kernel_that_was_started_with_no_number_of_a_root_is_named(tmp_path: Path, number: str) -> None:
    (tmp_path / "cmdline").write_text(f"quiet multiroot.root={number}\n")
    with pytest.raises(MultirootError, match="this kernel was started with"):
        identity.read_identity(tmp_path)


@given(st.text() | st.text("init 0123456789.e+-naif\n"))
def test_any_text_has_the_marks_it_has(text: str) -> None:
    assert all(seconds >= 0 for _, seconds in parse_marks(text))


@given(st.text("0123456789abcdef-: \nSystem RAM"))
def test_any_memory_is_read_or_refused(text: str) -> None:
    with suppress(MultirootError):
        identity.parse_memory(text)
