# SPDX-License-Identifier: GPL-2.0-or-later
"""An arena that somebody uses is not made anew, not even by force."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from multiroot.arena import layout
from multiroot.arena.arena import Arena, format_arena
from multiroot.arena.use import mapping
from multiroot.errors import ConflictError
from multiroot.units import MIB


def test_what_another_root_owns_is_not_forgotten(arena: Arena, formatted: Path) -> None:
    entry = arena.allocate("web", 2 * MIB, 1)
    arena.take("web", entry.owner, 2)
    before = formatted.read_bytes()
    with pytest.raises(ConflictError, match=r"is in use: root 2 owns web \(end all VMs first"):
        format_arena(formatted, force=True, lives=lambda root: root == 2)
    assert formatted.read_bytes() == before
    format_arena(formatted, force=True, lives=lambda root: root != 2)
    assert arena.entries() == []


def test_an_entry_that_cannot_be_read_still_has_an_owner(arena: Arena, formatted: Path) -> None:
    arena.allocate("web", 2 * MIB, 1)
    with formatted.open("r+b") as file:
        file.seek(layout.entry_offset(0) + layout.RECORD_OFFSET + 10)
        file.write(b"\xff")
    with pytest.raises(ConflictError, match="root 1 owns entry 0, which is damaged"):
        format_arena(formatted, force=True)


def test_a_vm_that_runs_here_is_seen_by_what_it_has_mapped(arena: Arena, formatted: Path) -> None:
    """Also when the table says nothing of it."""
    entry = arena.allocate("web", 2 * MIB, 1)
    with formatted.open("r+b") as file, mmap.mmap(file.fileno(), 2 * MIB, offset=entry.record.offset):
        assert list(mapping(formatted)) == [os.getpid()]
        with pytest.raises(ConflictError, match=f"process {os.getpid()} has a VM's RAM mapped"):
            format_arena(formatted, force=True, lives=lambda _: False)
    assert list(mapping(formatted)) == [], "an agent, which has the table mapped, is no VM"
    format_arena(formatted, force=True, lives=lambda _: False)
