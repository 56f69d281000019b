# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.arena import atomics
from multiroot.arena.atomics import Memory

WORDS = st.integers(0, (1 << 64) - 1)


def bitwise_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),  # these four: RFC 3720 B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_known_answers(data: bytes, expected: int) -> None:
    assert atomics.crc32c(data) == expected
    assert atomics.crc32c_portable(data) == expected


@given(st.binary(max_size=300))
def test_crc32c_both_ways_agree_with_the_definition(data: bytes) -> None:
    assert atomics.crc32c(data) == atomics.crc32c_portable(data) == bitwise_crc32c(data)


@given(WORDS, WORDS, WORDS)
def test_compare_exchange(held: int, expected: int, desired: int) -> None:
    memory = Memory(bytearray(64))
    memory.store(8, held)
    assert memory.compare_exchange(8, expected, desired) == held
    assert memory.load(8) == (desired if held == expected else held)
    assert memory.read(0, 8) == memory.read(16, 8) == bytes(8)


def test_write_read_and_flush() -> None:
    memory = Memory(bytearray(256))
    memory.write(3, b"abc")
    memory.flush(0, 256)
    assert memory.read(0, 8) == b"\0\0\0abc\0\0"
    assert atomics.flush_instruction() in ("clflush", "clflushopt", "clwb")


@pytest.mark.parametrize("offset", [-8, 64, 60, 1 << 40])
def test_words_outside_are_refused(offset: int) -> None:
    memory = Memory(bytearray(64))
    for access in (memory.load, lambda o: memory.store(o, 1), lambda o: memory.compare_exchange(o, 0, 1)):
        with pytest.raises(IndexError):
            access(offset)
    with pytest.raises(IndexError):
        memory.write(60, b"12345")
    with pytest.raises(IndexError):
        memory.flush(0, 65)


def test_misaligned_word_is_refused() -> None:
    with pytest.raises(ValueError, match="not aligned"):
        Memory(bytearray(64)).load(4)


def test_readonly_buffer_is_refused() -> None:
    with pytest.raises((BufferError, TypeError)):
        Memory(bytes(64))


def test_tsc_clock_scales() -> None:
    before = atomics.tsc()
    per_tick = atomics.tsc_clock(1_000_000)()  # 1 GHz: one tick is one ns
    after = atomics.tsc()
    assert before <= per_tick <= after
    with pytest.raises(ValueError, match="frequency"):
        atomics.tsc_clock(0)
