# SPDX-License-Identifier: GPL-2.0-or-later
"""A small arena in an ordinary file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot.arena.arena import Arena, format_arena
from multiroot.units import MIB


def blank_file(path: Path, size: int = 64 * MIB) -> Path:
    """A sparse file of zeros."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    return blank_file(tmp_path / "arena")


@pytest.fixture
def formatted(blank: Path) -> Path:
    format_arena(blank)
    return blank


@pytest.fixture
def arena(formatted: Path) -> Iterator[Arena]:
    opened = Arena(formatted, root=1)
    yield opened
    opened.close()
