# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a command is to write, looked at before it does anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from multiroot.cli.output import check_writable
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
        if path == Path("-") and not self._stdout:
            raise BadRequestError("standard output is no place for it", "name a file")
        check_writable(path)
        return path


OUTPUT_FILE = OutputFile()
FILE_OR_STDOUT = OutputFile(stdout=True)
