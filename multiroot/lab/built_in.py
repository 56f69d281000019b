# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that load no modules and have multiroot's built in (`multiroot kernel build --no-modules`).

What is built in cannot be built again for the multiroot that runs, so the folder of such a kernel says which
state of our modules it has.
"""

from __future__ import annotations

from pathlib import Path

from multiroot.errors import BadRequestError
from multiroot.lab import kernel_config, paths
from multiroot.lab.artifacts import digest_tree

OPTION = "MULTIROOT"  # csrc/kmod/Kconfig
_MARK = "multiroot-built-in"  # in the O= folder: the state of our modules, and the tree that was built
_PATTERNS = ("**/*.[chS]", "**/Kbuild", "**/Kconfig", "**/Makefile")


def sources() -> Path:
    """Where our modules' source is."""
    return paths.source_dir() / "csrc/kmod"


def digest() -> str:
    """The state of our modules' source."""
    return digest_tree(sources(), _PATTERNS)


def loads_modules(config: Path) -> bool:
    """Whether a kernel with this .config loads any."""
    return kernel_config.settings(config.read_text(errors="replace")).get("MODULES") == "y"


def note(out: Path, tree: Path) -> None:
    """Remember in an O= folder what has been built into its kernel, and from which tree."""
    (out / _MARK).write_text(f"{digest()}\n{tree}\n")


def check(out: Path) -> None:
    """Raises BadRequestError if a kernel without modules has not got ours, or has others than we have now."""
    mark = out / _MARK
    noted = mark.read_text().splitlines() if mark.is_file() else []
    if len(noted) == 2 and noted[0] == digest():
        return
    tree = noted[1] if len(noted) == 2 else "SRC"
    raise BadRequestError(
        f"the kernel in {out} has multiroot's modules of another state built in"
        if noted
        else f"{out} was built without CONFIG_MODULES, and without multiroot's modules in it",
        f"`multiroot kernel build {tree} --out {out} --no-modules` builds them in",
    )
