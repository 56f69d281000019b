# SPDX-License-Identifier: GPL-2.0-or-later
"""A text that a person works on in an editor until it can be used. What they have written is never lost."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import grpc

from multiroot.cli.output import say
from multiroot.errors import BadRequestError, MultirootError
from multiroot.rpc.status import decode

T = TypeVar("T")


def edited(text: str, use: Callable[[str], T], *, name: str, again: str) -> T | None:
    """What `use` makes of the text as a person has changed it in $EDITOR; None if nothing was changed.

    What `use` refuses can be edited again, on a terminal. Whenever this ends otherwise, the text is in a file
    whose path ends the command line `again`, which uses it; `name` is what the file is called after. Raises
    BadRequestError when there is no such editor, and what `use` raises.
    """
    file = _draft(name, text)
    try:
        return _until_used(file, text, use, again.removesuffix(" --file"))
    except (KeyboardInterrupt, SystemExit, click.Abort) as error:
        if kept := _kept(file, text, again):
            error.add_note(kept)
        raise
    except (MultirootError, grpc.RpcError, click.ClickException) as error:
        if not (kept := _kept(file, text, again)):
            raise
        ours = _ours(error)
        ours.hint = "; ".join(filter(None, (ours.hint, kept)))
        raise ours from error


def is_possible() -> bool:
    """Whether there is an editor to be had: one that was chosen may do without a terminal."""
    return _on_a_terminal() or any(os.environ.get(variable) for variable in ("VISUAL", "EDITOR"))


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _until_used(file: Path, text: str, use: Callable[[str], T], command: str) -> T | None:
    while True:
        _open(file, command)
        now = _read(file)
        if not now.strip() or now == text:
            file.unlink()
            return None
        try:
            made = use(now)
        except (MultirootError, grpc.RpcError) as error:
            if not _on_a_terminal():
                raise
            say(f"multiroot: {' '.join(str(_ours(error)).split())}", err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise BadRequestError("nothing was changed") from error
        else:
            file.unlink()
            return made


def _open(file: Path, command: str) -> None:
    """Until the editor has ended. Raises BadRequestError when it can't be started; `command` edits again."""
    try:
        click.edit(filename=str(file))
    except click.ClickException as error:
        variable = "VISUAL" if os.environ.get("VISUAL") else "EDITOR"
        another = f"choose another: {variable}=nano {command}"
        if not isinstance(error.__cause__, OSError):
            raise MultirootError(f"the editor has failed: {error.message}", another) from error
        raise BadRequestError(
            f"the editor {error.__cause__.filename} cannot be started: {error.__cause__.strerror}", another
        ) from error


def _draft(name: str, text: str) -> Path:
    descriptor, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".toml")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return Path(path)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise MultirootError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadRequestError(f"{file} is not UTF-8: {error.reason}") from error


def _kept(file: Path, text: str, again: str) -> str:
    """Where what was written is, "" if nothing was."""
    try:
        if file.read_bytes() != text.encode():
            return f"your text is kept; once it is mended there: {again} {file}"
        file.unlink()
    except FileNotFoundError:
        pass  # the editor, or we, have removed it
    return ""


def _ours(error: Exception) -> MultirootError:
    match error:
        case MultirootError():
            return error
        case grpc.RpcError():
            return decode(error, "the agent")
    return MultirootError(error.format_message() if isinstance(error, click.ClickException) else str(error))
