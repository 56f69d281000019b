# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules for an initramfs: which ones, in which order, decompressed."""

from __future__ import annotations

import gzip
import lzma
import tempfile
from collections.abc import Iterable
from pathlib import Path

from multiroot import proc
from multiroot.errors import CommandError


def load_order(folder: Path, names: Iterable[str]) -> list[Path]:
    """Files in lib/modules/RELEASE of the named modules and all they need, each after its needs
    (modules.dep, modules.builtin of depmod(8)).

    Built-in ones are left out; a name that ends in "?" may be absent. Raises CommandError for any other
    unknown name.
    """
    needs = _dependencies(folder)
    builtin = {_name(line) for line in (folder / "modules.builtin").read_text().splitlines()}
    order: list[str] = []
    for wanted in names:
        name = wanted.rstrip("?").replace("-", "_")
        path = next((path for path in needs if _name(path) == name), None)
        if path:
            # modules.dep lists the needs of a module from the nearest to the farthest.
            order += [need for need in (*reversed(needs[path]), path) if need not in order]
        elif name not in builtin and not wanted.endswith("?"):
            raise CommandError(f"kernel {folder.name} has no module {name}")
    return [folder / path for path in order]


def read_module(path: Path, zstd: list[str]) -> bytes:
    """The module, decompressed by its name; `zstd` is the command of that program. Raises CommandError."""
    try:
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise CommandError(f"cannot unpack module {path}: {error}") from error
    if program := {".zst": zstd, ".lz4": ["lz4"]}.get(path.suffix):
        with tempfile.TemporaryDirectory(prefix="multiroot-module-") as folder:
            target = Path(folder) / plain_name(path)
            proc.run([*program, "-dqf", path, *(["-o"] if program is zstd else []), target])
            return target.read_bytes()
    return path.read_bytes()


def words(path: Path) -> list[str]:
    """Words of a file, comments left out."""
    return [word for line in path.read_text().splitlines() for word in line.partition("#")[0].split()]


def plain_name(path: Path) -> str:
    """File name of a module without its compression suffix: nd_pmem.ko."""
    return path.name.partition(".ko")[0] + ".ko"


def _dependencies(folder: Path) -> dict[str, list[str]]:
    lines = (folder / "modules.dep").read_text().splitlines()
    return {name: needs.split() for name, _, needs in (line.partition(":") for line in lines)}


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
