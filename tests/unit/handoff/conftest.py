# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from multiroot.arena.arena import format_arena
from multiroot.units import MIB
from multiroot.vm.definition import VmDefinition

from .harness import Root, make_root
from .several import NAMES, Two


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder with an arena and a guest image."""
    with (tmp_path / "arena").open("wb") as file:
        file.truncate(64 * MIB)
    format_arena(tmp_path / "arena")
    guest = tmp_path / "guests" / "tiny"
    guest.mkdir(parents=True)
    (guest / "vmlinuz").touch()
    (guest / "initrd").touch()
    return tmp_path


@pytest.fixture
async def roots(ground: Path) -> AsyncIterator[tuple[Root, Root]]:
    """The giver and the taker."""
    giver, taker = make_root(1, ground), make_root(2, ground)
    for root in (giver, taker):
        await root.serve()
    yield giver, taker
    for root in (giver, taker):
        await root.close()


@pytest.fixture
async def two(ground: Path) -> AsyncIterator[Two]:
    (ground / "arena").unlink()
    with (ground / "arena").open("wb") as file:
        file.truncate(128 * MIB)
    format_arena(ground / "arena")
    made = Two(ground)
    for root in (made.giver, made.taker):
        await root.serve()
    for name in NAMES:
        await made.giver.manager.run(VmDefinition(name, ram_bytes=32 * MIB, guest="tiny").checked())
    yield made
    for root in (made.giver, made.taker):
        await root.close()
