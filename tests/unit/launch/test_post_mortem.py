# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a crash has traces, or says why it has none; it never fails for them."""

from __future__ import annotations

from vmcore.small_kernel import SmallKernel

from launch.kernel_memory import Memory
from multiroot.errors import MultirootError
from multiroot.launch.post_mortem import traces_of
from multiroot.ranges import Range


def test_a_kernel_that_has_no_table_of_symbols() -> None:
    memory = SmallKernel()
    assert traces_of(memory, memory.ranges, 2) == [
        "What its CPUs did cannot be read: the kernel does not say kallsyms_names"
    ]


def test_no_kernel() -> None:
    assert traces_of(Memory(bytearray(4096), 0x100000), [Range(0x100000, 4096)], 2) == []


def test_memory_that_is_gone() -> None:
    class Gone(SmallKernel):
        def find_word(self, phys: int, size: int, word: int) -> int:
            raise MultirootError("cannot look through it")

    memory = Gone()
    assert traces_of(memory, memory.ranges, 2) == ["What its CPUs did cannot be read: cannot look through it"]
