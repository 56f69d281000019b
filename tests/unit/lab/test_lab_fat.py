# SPDX-License-Identifier: GPL-2.0-or-later
"""FAT file systems in files: which programs of the tree are run on what. They are played."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from multiroot import proc
from multiroot.lab.fat import FatImage
from multiroot.units import MIB

TOOLS = Path("/tools")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands from the program on, without the tree's loader in front."""
    found: list[list[str]] = []

    def run(argv: Sequence[proc.Arg], *, env: dict[str, str] | None = None, **_: Any) -> None:
        words = [str(word) for word in argv]
        assert words[0].startswith(f"{TOOLS}/usr/lib/"), "the tree's own loader"
        program = next(
            i for i, word in enumerate(words) if word.startswith(f"{TOOLS}/usr/") and "bin/" in word
        )
        found.append([Path(words[program]).name, *words[program + 1 :]])
        assert words[program].endswith("mkfs.vfat") or env, "mtools need the code pages of the tree"

    monkeypatch.setattr(proc, "run", run)
    return found


def test_files_go_into_folders(tmp_path: Path, ran: list[list[str]]) -> None:
    image = FatImage(tmp_path / "image", TOOLS, tmp_path / "log")
    image.format("EFI", 4 * MIB)
    image.make_folder(Path("EFI"))
    image.put(tmp_path / "a b", Path("EFI/B"))
    assert (tmp_path / "image").stat().st_size == 4 * MIB
    assert [shlex.join(words).replace(str(tmp_path), "") for words in ran] == [
        "mkfs.vfat -n EFI /image",
        "mmd -i /image ::/EFI",
        "mcopy -i /image '/a b' ::/EFI/B",
    ]
