# SPDX-License-Identifier: GPL-2.0-or-later
"""What a judging command held or not, for programs that read test results: --ktap and --junit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.output import say
from multiroot.cli.output_file import OUTPUT_FILE
from multiroot.errors import MultirootError

if TYPE_CHECKING:
    from multiroot.verdict.points import Point

Command = Callable[..., Any]


@dataclass(frozen=True)
class PointsChoice:
    """What the options say: KTAP on stdout in place of tables, and the name of a file for JUnit's XML."""

    ktap: bool = False
    junit: Path | None = None

    def check_stdout(self, *, data: bool) -> None:
        """Raises UsageError if `data` goes to stdout as well."""
        if self.ktap and data:
            raise click.UsageError("--ktap and --json cannot both go to stdout.")

    def tell(self, points: Sequence[Point], suite: str) -> None:
        """Write what was asked for. Raises MultirootError when a file cannot be written."""
        from multiroot.verdict import junit, ktap

        if self.junit:
            try:
                self.junit.write_text(junit.write(points, suite), encoding="utf-8")
            except OSError as error:
                raise MultirootError(f"cannot write {self.junit}: {error.strerror}") from error
        if self.ktap:
            for line in ktap.write(points).splitlines():
                say(line)


def points_options(function: Command) -> Command:
    """Adds --ktap and --junit; the command gets `points: PointsChoice`."""

    @click.option("--ktap", is_flag=True, help="Print test points (KTAP) in place of tables.")
    @click.option(
        "--junit",
        metavar="FILE",
        type=OUTPUT_FILE,
        help="Write test points to FILE, as JUnit.",
    )
    @functools.wraps(function)
    def command(ktap: bool, junit: Path | None, **others: Any) -> Any:
        return function(points=PointsChoice(ktap, junit), **others)

    decorated: Command = command
    return decorated
