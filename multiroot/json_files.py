# SPDX-License-Identifier: GPL-2.0-or-later
"""Small JSON files that outlive the agent which writes them: all of one is there, or what was there before.

An agent may be killed at any moment, and the next one reads what it has left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from multiroot.errors import MultirootError

T = TypeVar("T", dict[str, Any], list[Any])
R = TypeVar("R")

_TOPS: dict[type, str] = {dict: "object", list: "list"}

# What a record's maker raises for JSON that is no such record.
_NO_RECORD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MultirootError)


def write(path: Path, value: Any, mode: int = 0o600) -> None:
    """Put `value` into a file in the place of what is there, in one step; the folder must exist.

    A process that ends in the middle leaves a file beside it, with ".new" behind its name, which the next one
    overwrites. Raises MultirootError when the file cannot be written.
    """
    data = json.dumps(value).encode() + b"\n"
    fresh = path.with_name(f"{path.name}.new")
    try:
        _write_through(fresh, data, mode)
        fresh.replace(path)
        _sync(path.parent)
    except OSError as error:
        # The error tells more than that this cannot be removed, either.
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise MultirootError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path, top: type[T], make: Callable[[T], R], hint: str = "") -> R | None:
    """What `make` makes of the JSON in a file, None if there is no file. `top` is what the JSON must be.

    `make` raises any of the usual errors for what is no record. Raises MultirootError with `hint`, naming the
    file and what is wrong, when it cannot be read or is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MultirootError(f"cannot read {path}: {error.strerror}", hint) from error
    try:
        value = json.loads(data)
        if not isinstance(value, top):
            raise TypeError(f"it is no JSON {_TOPS[top]}")
        return make(value)
    except KeyError as error:
        raise MultirootError(f"{path} is damaged: it lacks {error}", hint) from error
    except (*_NO_RECORD, RecursionError) as error:
        raise MultirootError(f"{path} is damaged: {error}", hint) from error


def _write_through(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        # One that was left half done has the mode that it was made with.
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    """A new name is on stable storage when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
