# SPDX-License-Identifier: GPL-2.0-or-later
"""FAT file systems in files, made by programs of a tree (qemu-lab/roots.toml: disk_tools) without a mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch, proc
from multiroot.lab import roots

_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class FatImage:
    """A FAT file system in a file of its own; `programs` is the tree with tools, `log` gets their output."""

    image: Path
    programs: Path
    log: Path

    def format(self, label: str, size: int) -> None:
        """Make it, of `size` bytes."""
        self.image.touch()
        os.truncate(self.image, size)
        mkfs = roots.loader_argv(self.programs, "sbin/mkfs.vfat")
        argv: list[proc.Arg] = [*mkfs, "-n", label, self.image]
        proc.run(argv, log=self.log, timeout=_TIMEOUT_S)

    def make_folder(self, path: Path) -> None:
        self._run("mmd", [f"::/{path}"])

    def put(self, source: Path, path: Path) -> None:
        """Copy the file `source` to `path`."""
        self._run("mcopy", [str(source), f"::/{path}"])

    def _run(self, program: str, words: list[str]) -> None:
        mtool = roots.loader_argv(self.programs, f"bin/{program}")
        argv: list[proc.Arg] = [*mtool, "-i", self.image, *words]
        # Names go through the code pages of the tree, for its library fits those only.
        env = {"GCONV_PATH": str(self.programs / arch.current().lab.libraries / "gconv"), "LC_ALL": "C"}
        proc.run(argv, log=self.log, timeout=_TIMEOUT_S, env=env)
