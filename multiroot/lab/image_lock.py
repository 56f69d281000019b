# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses the file of a disk image: one machine, which writes to it, or those that read it.

A lock on the file (flock) says so. The QEMU of a machine inherits it and holds it as long as it runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multiroot import proc
from multiroot.errors import BadRequestError, ConflictError


@contextmanager
def read(file: Path) -> Iterator[None]:
    """In the body, no machine that writes to the file starts. Raises ConflictError if one runs,
    BadRequestError.
    """
    with _locked(file, fcntl.LOCK_SH) as fd:
        if fd is None:
            raise ConflictError(
                f"{file} is in use: a lab machine that runs writes to it",
                "end that machine first: multiroot lab down",
            )
        yield


@contextmanager
def written(file: Path) -> Iterator[int]:
    """In the body nobody else gets the file; nor does anybody later, as long as a process has this
    descriptor. Raises ConflictError if somebody has it, BadRequestError.
    """
    with _locked(file, fcntl.LOCK_EX) as fd:
        if fd is None:
            copy = proc.quote(["cp", "--sparse=always", file, "copy.raw"])
            raise ConflictError(
                f"{file} is in use: another machine that runs writes to it, or it is being read",
                f"end that one, or give this one a copy: {copy}",
            )
        yield fd


@contextmanager
def _locked(file: Path, how: int) -> Iterator[int | None]:
    """None if somebody else has it."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadRequestError(f"{file} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield fd
    finally:
        os.close(fd)
