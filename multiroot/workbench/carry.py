# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs somebody's command where they want it: in a root, with what it needs carried in, or on the
workstation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.errors import BadRequestError, CommandError, MultirootError
from multiroot.lab import execution
from multiroot.lab.execution import Channel, Sink

Reach = Callable[[], Channel]  # gives a fresh way to an exec service
FOLDER = "/run/multiroot/try"  # in a root, or in a guest
_PUT = 'mkdir -p "$1" && cat >"$1/$2" && chmod "$3" "$1/$2"'
_RUN = 'cd "$1" && shift && exec env "$@"'
# What a shell, env and our exec service end with when they cannot run a program.
CANNOT_RUN = (126, 127)


@dataclass(frozen=True)
class Streams:
    """Where the command's input comes from (a file descriptor, None: nowhere) and its output goes."""

    stdin: int | None
    stdout: Sink
    stderr: Sink


def check(command: Sequence[str], carried: Sequence[Path]) -> None:
    """Raises BadRequestError for files that cannot be carried in, before anything takes time."""
    for path in carried:
        _require_file(path, "--carry names a file on this computer")
    if command and "/" in command[0]:
        path = Path(command[0])
        _require_file(path, "a command without a slash is looked for in the root")
        if not os.access(path, os.X_OK):
            raise BadRequestError(f"{path} is not executable", f"`chmod +x {path}`")


def _require_file(path: Path, hint: str) -> None:
    if path.is_dir():
        raise BadRequestError(f"{path} is a folder", "name a file")
    if not path.is_file():
        raise BadRequestError(f"there is no file {path}", hint)
    if not os.access(path, os.R_OK):
        raise BadRequestError(f"cannot read {path}")


def carry_in(reach: Reach, command: Sequence[str], carried: Sequence[Path]) -> tuple[str, ...]:
    """Put the command's file, if it is one of ours, and others there; returns the command as it is there."""
    own = [Path(command[0])] if "/" in command[0] else []
    for path in (*own, *carried):
        put(reach, path, Path(FOLDER, path.name))
    return (f"./{own[0].name}", *command[1:]) if own else tuple(command)


def put(reach: Reach, path: Path, place: Path) -> None:
    """Put a file there, executable if it is here. Raises MultirootError."""
    errors = bytearray()
    mode = "755" if os.access(path, os.X_OK) else "644"
    with path.open("rb") as file, closing(reach()) as channel:
        code = execution.execute(
            channel,
            ["sh", "-c", _PUT, "sh", str(place.parent), place.name, mode],
            stdin=file.fileno(),
            stdout=errors.extend,
            stderr=errors.extend,
        )
    if code:
        said = errors.decode(errors="replace").strip()
        raise MultirootError(
            f"cannot carry {path} into the lab: {said}", "has the root or guest room for it?"
        )


def run_there(reach: Reach, command: Sequence[str], environment: Mapping[str, str], streams: Streams) -> int:
    """Run a command in a root or a guest to its end; its exit code, 128 + N when signal N ended it."""
    words = [f"{key}={value}" for key, value in environment.items()]
    argv = ["sh", "-c", f'mkdir -p "$1"; {_RUN}', "sh", FOLDER, *words, *command]
    with closing(reach()) as channel:
        return execution.execute(
            channel, argv, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )


def run_here(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command on the workstation, with our streams; its exit code as a shell has it."""
    try:
        code = proc.attend(command, environment)
    except CommandError as error:
        return error.returncode
    return code if code >= 0 else 128 - code
