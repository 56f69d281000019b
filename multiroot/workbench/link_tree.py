# SPDX-License-Identifier: GPL-2.0-or-later
"""A source tree by links, in which some files are our own: nobody's tree is written to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from multiroot.lab import paths


def link_tree(source: Path, target: Path, own: Collection[Path]) -> None:
    """Make `target` a tree that is `source` by links, but for the places `own` (relative), which are left to
    the caller. What was there and did not change keeps its time, so that make has nothing to do.
    """
    folders = sorted({parent for path in own for parent in path.parents})
    for folder in folders:
        paths.make_dir(target / folder)
        for link in sorted((target / folder).iterdir()):
            if link.is_symlink() and not link.exists():
                link.unlink()
        for each in sorted((source / folder).iterdir()):
            place = folder / each.name
            if place in folders or place in own:
                continue
            link = target / place
            if not link.is_symlink() or link.readlink() != each:
                link.unlink(missing_ok=True)
                link.symlink_to(each)


def put(path: Path, content: bytes) -> None:
    """Write a file, unless it has this content already."""
    paths.make_dir(path.parent)
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)
