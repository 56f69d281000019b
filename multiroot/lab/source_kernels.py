# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that `multiroot kernel build` makes of a source; some have a name (`qemu-lab/kernels.toml`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from multiroot import arch
from multiroot.errors import BadRequestError
from multiroot.lab import paths, recipes
from multiroot.lab.recipes import BuiltRecipe

# In an O= folder while make runs: an image is there long before the modules are.
UNFINISHED = ".multiroot-unfinished"


def folder(source: str, debug: Sequence[str]) -> Path:
    """The O= folder of a tree or a Debian package if nobody says another; `debug` as in `kernel build`."""
    given = str(Path(source).expanduser().absolute() if "/" in source else source)
    return paths.cache_dir() / "builds" / "-".join((re.sub(r"\W+", "-", given).strip("-"), *sorted(debug)))


def find(name: str) -> BuiltRecipe | None:
    """The kernel of that name, None if there is none among those that are built of a source."""
    return next((each for each in recipes.kernels().built if each.name == name), None)


def is_there(recipe: BuiltRecipe) -> bool:
    """Whether it has been built."""
    out = folder(recipe.source, recipe.debug)
    return (out / arch.current().kernel.built).is_file() and not (out / UNFINISHED).exists()


def place(recipe: BuiltRecipe) -> Path:
    """Where it was built. Raises BadRequestError."""
    if not is_there(recipe):
        command = ["multiroot kernel build", recipe.source, *(f"--debug {each}" for each in recipe.debug)]
        raise BadRequestError(
            f"kernel {recipe.name} has not been built here yet",
            f"`{' '.join(command)}` builds it, and so does `multiroot try --new {recipe.name}`",
        )
    return folder(recipe.source, recipe.debug)
