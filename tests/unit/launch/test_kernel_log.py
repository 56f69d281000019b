# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's messages, read from its memory: all, once, in order; and nothing from other memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launch.kernel_memory import BANNER, Memory, Printk
from multiroot.launch.kernel_log import KernelLog, forget
from multiroot.ranges import Range
from multiroot.units import KIB, MIB

START = 0x100000


class Machine:
    """Memory from START on, and a reader of it."""

    def __init__(self, size: int = 256 * KIB) -> None:
        self.memory = bytearray(size)
        self.log = KernelLog(Memory(self.memory, START), Range(START, size))

    def search(self) -> None:
        for _ in self.log.search():
            pass

    def said(self) -> list[str]:
        """What is new; the newest message is looked at twice."""
        return self.log.new_lines() + self.log.new_lines()


def test_a_kernel_that_says_nothing_is_not_found() -> None:
    machine = Machine()
    machine.search()
    assert not machine.log.found
    assert machine.said() == []


def test_each_message_comes_once_and_the_newest_when_it_is_whole() -> None:
    machine = Machine()
    kernel = Printk(machine.memory, 4096)
    kernel.say(BANNER)
    kernel.say("Command line: quiet\n")
    machine.search()
    assert machine.log.new_lines() == [BANNER.strip()]
    assert machine.log.new_lines() == ["Command line: quiet"]
    kernel.say("\n")
    kernel.say("two\nlines\n")
    assert machine.said() == ["two", "lines"]
    assert machine.said() == []


@pytest.mark.parametrize("bits", [32, 62])
def test_kernels_begin_to_count_at_different_numbers(bits: int) -> None:
    """Those of 7.3 come to 0 with the message after as many as they have descriptors."""
    machine = Machine()
    kernel = Printk(machine.memory, 4096, count=4, bits=bits)
    texts = [BANNER.strip(), *(f"message {number}" for number in range(8))]
    for text in texts:
        kernel.say(text + "\n", level="\x016")
    machine.search()
    assert machine.said() == texts


def test_what_an_earlier_kernel_said_is_not_taken_for_the_next_ones() -> None:
    machine = Machine()
    dead = Printk(machine.memory, 4096)
    dead.say(BANNER)
    dead.say("Kernel panic - not syncing: of long ago\n")
    forget(Memory(machine.memory, START), Range(START, len(machine.memory)))
    machine.search()
    assert not machine.log.found
    Printk(machine.memory, 64 * KIB).say(BANNER)
    machine.search()
    assert machine.said() == [BANNER.strip()]


@pytest.mark.parametrize("text", ["---[ end Kernel panic ]---", "Run /init as init process", "ok"])
def test_the_level_of_a_message_leaves_nothing_behind_its_text(text: str) -> None:
    machine = Machine()
    kernel = Printk(machine.memory, 4096)
    kernel.say(BANNER, level="\x015")
    kernel.say(text + "\n", level="\x010")
    kernel.say(text, level="\x010")
    machine.search()
    assert machine.said() == [BANNER.strip(), text, text]


def test_the_banner_in_the_image_is_no_message() -> None:
    machine = Machine()
    machine.memory[64 : 64 + len(BANNER)] = BANNER.encode()
    machine.search()
    assert not machine.log.found


def test_a_buffer_across_two_pieces_of_memory_is_found() -> None:
    machine = Machine(33 * MIB)
    kernel = Printk(machine.memory, 32 * MIB - 8)
    kernel.say(BANNER)
    machine.search()
    assert machine.said() == [BANNER.strip()]


def test_when_the_kernel_moves_to_a_larger_buffer_it_is_followed() -> None:
    machine = Machine()
    early = Printk(machine.memory, 4096)
    early.say(BANNER)
    machine.search()
    assert machine.said() == [BANNER.strip()]
    late = Printk(machine.memory, 128 * KIB, 1 << 14, 1 << 14)
    late.say(BANNER)
    late.say("Memory: 1 of 2\n")
    assert machine.said() == []
    machine.search()
    assert machine.said() == ["Memory: 1 of 2"]


def test_what_was_written_over_is_told_as_lost() -> None:
    machine = Machine()
    kernel = Printk(machine.memory, 4096, 1 << 10)
    kernel.say(BANNER)
    machine.search()
    machine.said()
    for number in range(200):
        kernel.say(f"message {number}\n")
    said = machine.said()
    assert said[0].startswith("... messages were lost")
    assert said[-1] == "message 199"


@settings(max_examples=60, deadline=None)
@example(texts=["0\x070\x08"], size=1 << 11, count=1 << 12, bits=32, often=1)
@example(texts=["0" * 9], size=1 << 11, count=1 << 5, bits=62, often=1)
@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=200), max_size=150),
    st.sampled_from((1 << 11, 1 << 12)),
    st.sampled_from((1 << 5, 1 << 12)),
    st.sampled_from((32, 62)),
    st.integers(1, 4),
)
def test_read_often_enough_nothing_is_missed_wherever_the_buffer_ends(
    texts: list[str], size: int, count: int, bits: int, often: int
) -> None:
    """Also across the end of the buffer, and of the ids, which come soon with few descriptors."""
    machine = Machine()
    kernel = Printk(machine.memory, 4096, size, count, bits)
    kernel.say(BANNER)
    machine.search()
    said = machine.said()
    for number, text in enumerate(texts):
        kernel.say(text)
        if number % often == 0:
            said += machine.said()
    said += machine.said()
    wanted = [BANNER.strip()]
    for text in texts:
        if text.strip("\n"):  # others leave no block
            kept = text.removesuffix("\n")
            # A text that ends with the same two characters twice loses one of the pairs.
            kept = kept[:-2] if kept[-2:] == kept[-4:-2] else kept
            wanted += "".join(c if c.isprintable() or c in "\n\t" else "?" for c in kept).splitlines()
    assert said == wanted


@pytest.mark.parametrize("seed", range(8))
def test_any_bytes_are_read_without_end_or_error(seed: int) -> None:
    """A new root may write anything, also while it is read."""
    rng = random.Random(seed)
    machine = Machine()
    kernel = Printk(machine.memory, 4096, 1 << 12)
    kernel.say(BANNER)
    machine.search()
    for _ in range(50):
        for _ in range(200):
            kernel.say("x" * rng.randrange(1, 60))
        at = 4096 + rng.randrange(1 << 12)
        machine.memory[at : at + 64] = rng.randbytes(64)
        machine.log.new_lines()
    machine.memory[:] = rng.randbytes(len(machine.memory))
    machine.search()
    machine.said()
