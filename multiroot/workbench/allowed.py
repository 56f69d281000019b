# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a person's allow lists."""

from __future__ import annotations

from pathlib import Path

from multiroot import toml_files
from multiroot.errors import BadRequestError
from multiroot.verdict.allow import Allowed, allow_list


def allow_list_of(path: Path) -> tuple[Allowed, ...]:
    """What a file allows kernels to say. Raises BadRequestError."""
    try:
        return tuple(allow_list(path, toml_files.read(path)))
    except FileNotFoundError as error:
        raise BadRequestError(
            f"there is no file {path}", "a list is a TOML file with [[allow]] tables"
        ) from error
