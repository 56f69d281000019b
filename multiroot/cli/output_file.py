# SPDX-License-Identifier: GPL-2.0-or-later
"""Files and folders that a command is to write, looked at before it does anything."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from multiroot.errors import BadRequestError


class OutputFile(click.ParamType[Path]):
    """The path of a file that can be written. Raises BadRequestError for any other.

    What a command has measured in an hour must not be lost for a mistyped folder. `stdout`: or "-" for that.
    """

    name = "file"

    def __init__(self, *, stdout: bool = False) -> None:
        self._stdout = stdout

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if path != Path("-"):
            _check(path)
        elif not self._stdout:
            raise BadRequestError("standard output is no place for it", "name a file")
        return path


def _check(path: Path) -> None:
    """Raises BadRequestError for a file that could not be written once all is done."""
    if path.is_dir():
        raise BadRequestError(f"{path} is a folder", f"name a file: {path / 'report'}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise BadRequestError(f"there is no folder {folder}", f"`mkdir -p {shlex.quote(str(folder))}`")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise BadRequestError(f"{path} cannot be written", "name another file")


class OutputFolder(click.ParamType[Path]):
    """The path of a folder to write into, which may have to be made. Raises BadRequestError for any other."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        if not there.is_dir():
            raise BadRequestError(f"{there} is a file", "name a folder")
        if not os.access(there, os.W_OK):
            raise BadRequestError(f"{there} cannot be written to", "name another folder")
        return path


OUTPUT_FOLDER = OutputFolder()
OUTPUT_FILE = OutputFile()
FILE_OR_STDOUT = OutputFile(stdout=True)
