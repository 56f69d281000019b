# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses the file of a disk image: one machine, which writes to it, or those that read it.

A lock on the file (flock) says so. The QEMU of a machine inherits it and holds it as long as it runs.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multiroot import proc
from multiroot.errors import BadRequestError, ConflictError
from multiroot.lab import paths


@contextmanager
def read(file: Path) -> Iterator[None]:
    """In the body, no machine that writes to the file starts. Raises ConflictError if one runs,
    BadRequestError.
    """
    with _locked(file, fcntl.LOCK_SH) as fd:
        if fd is None:
            raise ConflictError(
                f"{file} is in use: a lab machine that runs writes to it",
                f"end that machine first: {proc.quote(['multiroot', 'lab', 'down', *_named(file)])}",
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


def _named(file: Path) -> list[str]:
    """The option that names the lab whose machine has the file; nothing if none is known to have it."""
    for record in (paths.state_path() / "labs").glob("*/lab.json"):
        # One of another version of ours may be of any form, and one of a lab that ends may be gone.
        with suppress(OSError, ValueError, LookupError, TypeError):
            disks = [Path(disk["file"]) for disk in json.loads(record.read_text())["machine"]["disks"]]
            if any(disk.exists() and disk.samefile(file) for disk in disks):
                return ["--name", record.parent.name]
    return []


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
