# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab builds: each artifact is a name, a digest of everything that goes into it, and a way to
build it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, eq=False)
class Artifact:
    """`build(folder)` fills an empty folder; the same `inputs` must give an equivalent folder.

    `inputs` names everything the result depends on: commands, file digests, digests of other artifacts.
    """

    name: str
    inputs: Mapping[str, str]
    build: Callable[[Path], None]

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the name and the inputs, in any order."""
        state = hashlib.sha256()
        for key, value in (("", self.name), *sorted(self.inputs.items())):
            state.update(f"{len(key)}:{key}{len(value)}:{value}".encode())
        return state.hexdigest()[:16]

    @property
    def key(self) -> str:
        """The folder's name in the cache."""
        return f"{self.name}-{self.digest}"


def digest_files(root: Path, files: Iterable[Path]) -> str:
    """Digest of names (relative to `root`), executable bits and contents; links count by target."""
    state = hashlib.sha256()
    for path in sorted(files):
        if path.is_symlink():
            kind, data = "link", os.fsencode(path.readlink())
        else:
            kind, data = ("program" if path.stat().st_mode & 0o100 else "file"), path.read_bytes()
        state.update(f"{kind} {path.relative_to(root)} {len(data)}\n".encode())
        state.update(data)
    return state.hexdigest()


def digest_tree(root: Path, patterns: Iterable[str] = ("**/*",)) -> str:
    """Digest of the files below `root` that match; caches of compilers and editors are left out."""
    return digest_files(root, source_files(root, patterns))


def source_files(root: Path, patterns: Iterable[str] = ("**/*",)) -> list[Path]:
    """Files below `root` that are source: no bytecode, no kbuild or compiler output, no hidden files."""
    found: set[Path] = set()
    for pattern in patterns:
        found.update(
            path for path in root.glob(pattern) if not path.is_dir() and _is_source(path.relative_to(root))
        )
    return sorted(found)


_BUILT = {".pyc", ".o", ".ko", ".so", ".mod", ".cmd", ".symvers", ".order", ".orig", ".swp"}


def _is_source(path: Path) -> bool:
    if any(part.startswith(".") or part == "__pycache__" for part in path.parts):
        return False
    return path.suffix not in _BUILT and not path.name.endswith((".mod.c", "~"))
