# SPDX-License-Identifier: GPL-2.0-or-later
"""Another root may write anything into the arena's metadata: every use of it works or is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multiroot.arena import layout
from multiroot.arena.arena import Arena, OwnerWord, format_arena, open_or_format
from multiroot.arena.atomics import crc32c
from multiroot.arena.layout import Owner
from multiroot.errors import BadRequestError, MultirootError
from multiroot.units import MIB

EMPTY = bytes(layout.entry_offset(8) - layout.SUPERBLOCK_OFFSETS[-1] - layout.SUPERBLOCK_SIZE)
WORDS = st.sampled_from((0, 1, 2, 3, MIB, 2 * MIB, 4 * MIB, 1 << 30, (1 << 48) - 1, (1 << 63), (1 << 64) - 1))
WORDS |= st.integers(0, (1 << 64) - 1)
NAMES = st.binary(max_size=layout.NAME_SIZE) | st.sampled_from(
    (b"vm0", b"../x", b"a/b", b"\xff", b"a\nb", b"")
)


def record(name: bytes, offset: int, size: int, definition: int, index: int) -> bytes:
    """A record with a valid checksum, whatever it says."""
    body = layout._RECORD.pack(index, name, offset, size, definition)
    return body + layout._CHECKSUM.pack(crc32c(body))


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Offsets in the metadata, and what to write there: entries of the table, mostly with good checksums."""
    written = []
    for index in draw(st.lists(st.integers(0, 4), max_size=4, unique=True)):
        base = layout.entry_offset(index)
        good = record(draw(NAMES), draw(WORDS), draw(WORDS), draw(st.integers(0, 0xFFFFFFFF)), index)
        data = good if draw(st.integers(0, 4)) else draw(st.binary(max_size=layout.RECORD_SIZE))
        written.append((base + layout.RECORD_OFFSET, data))
        written.append((base + layout.OWNER_OFFSET, draw(WORDS).to_bytes(8, "little")))
        state = draw(st.sampled_from((layout.USED, layout.USED, layout.FREE)) | WORDS)
        written.append((base + layout.STATE_OFFSET, state.to_bytes(8, "little")))
    for offset in (layout.GENERATION_OFFSET, layout.WATERMARK_OFFSET, layout.EPOCH_OFFSET):
        if draw(st.booleans()):
            written.append((offset, draw(WORDS).to_bytes(8, "little")))
    return written


def uses(arena: Arena) -> Iterator[Callable[[], Any]]:
    """All that a root does with an arena."""
    yield arena.entries
    yield arena.free_extents
    yield lambda: arena.allocate("vm9", 2 * MIB, 1)
    with suppress(MultirootError):
        for entry in arena.entries():
            word = OwnerWord(arena.memory, entry)
            yield word.read
            yield lambda word=word: word.take(word.read(), 2)
            yield lambda word=word, entry=entry: arena.free(entry.name, word.read())
    yield lambda: arena.allocate("vm8", 2 * MIB, 1)
    yield lambda: arena.free("vm8", Owner(1, 1))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries())
def test_any_table_can_be_used_or_is_refused(formatted: Path, written: list[tuple[int, bytes]]) -> None:
    arena = Arena(formatted, root=1)
    arena.memory.write(layout.SUPERBLOCK_OFFSETS[-1] + layout.SUPERBLOCK_SIZE, EMPTY)
    try:
        for offset, data in written:
            arena.memory.write(offset, data)
        for use in uses(arena):
            with suppress(MultirootError):
                use()
        with suppress(MultirootError):
            for entry in arena.entries():
                assert entry.name.isprintable()
                assert entry.record.offset >= layout.METADATA_SIZE
                assert entry.record.size > 0
                assert entry.record.end <= arena.size
    finally:
        arena.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 0x2FFF), st.binary(min_size=1, max_size=24)), max_size=8), st.booleans()
)
def test_any_superblock_is_opened_or_refused(
    formatted: Path, written: list[tuple[int, bytes]], mend: bool
) -> None:
    format_arena(formatted, force=True)
    with formatted.open("r+b") as file:
        for offset, data in written:
            file.seek(offset)
            file.write(data)
        for offset in layout.SUPERBLOCK_OFFSETS if mend else ():
            file.seek(offset)
            body = file.read(layout.SUPERBLOCK_SIZE - 4)
            file.write(crc32c(body).to_bytes(4, "little"))
    with suppress(BadRequestError):
        open_or_format(formatted, 1).close()
