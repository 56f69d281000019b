# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot try --matrix`: many trials from one file, one table, one page."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from multiroot.cli.output import print_table, say, shown_phases

if TYPE_CHECKING:
    from multiroot.workbench.matrix import Result

Command = Callable[..., Any]
_OWN = ("file", "output", "changed", "jobs")


@dataclass(frozen=True)
class MatrixChoice:
    """What the options say. `jobs` is 0 for as many as this computer can play at a time."""

    file: Path | None
    output: Path
    changed: bool
    jobs: int

    def check_alone(self, ctx: click.Context) -> None:
        """Raises UsageError for what would say twice what the file says."""
        given = [each for each in _given(ctx) if each.name not in _OWN]
        if given:
            raise click.UsageError(f"--matrix has all of a trial in its file: leave {_called(given[0])} out.")

    def check_unused(self, ctx: click.Context) -> None:
        """Raises UsageError for options that mean nothing without a matrix."""
        given = [each for each in _given(ctx) if each.name in _OWN]
        if given:
            raise click.UsageError(f"{_called(given[0])} is for --matrix.")

    def play(self) -> int:
        """Play what is to be played; 0 if all is good, 1 if something is bad, 125 if something was not
        tested.
        """
        from multiroot.workbench import kernel_build
        from multiroot.workbench import matrix as cells_of
        from multiroot.workbench.matrix_run import Run, code_of

        assert self.file
        matrix = cells_of.read(self.file)
        with shown_phases() as phases:
            kernel_build.build_named((*matrix.old, *matrix.new, *matrix.guest), phases)
        digests = cells_of.digests(matrix)
        wanted = cells_of.to_do(self.output, matrix, digests, changed=self.changed)
        say(f"{len(wanted)} of {len(digests)} trials to play", err=True)
        run = Run(matrix, self.output, digests, _tell)
        results = run.play(wanted, self.jobs or cells_of.at_once(matrix))
        print_table(
            ("old", "new", "machine", "backend", "guest", "in", "verdict", "code >", "s >"),
            [
                (
                    cell.old,
                    cell.new,
                    cell.machine,
                    cell.backend,
                    cell.guest,
                    cell.where,
                    result.word,
                    "" if result.code is None else result.code,
                    f"{result.seconds:.0f}",
                )
                for cell, result in cells_of.rows(matrix, results)
            ],
        )
        say(f"the page: {self.output / cells_of.PAGE}")
        return code_of(results)


def _given(ctx: click.Context) -> list[click.Parameter]:
    """What stands on the command line."""
    return [
        each
        for each in ctx.command.get_params(ctx)
        if each.name and ctx.get_parameter_source(each.name) is ParameterSource.COMMANDLINE
    ]


def _called(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else "CMD"


def _tell(result: Result) -> None:
    say(f"{result.cell.name}: {result.word} after {result.seconds:.0f} s", err=True)


def matrix_options(function: Command) -> Command:
    """Adds --matrix, --output, --changed and --jobs; the command gets `matrix: MatrixChoice`."""
    options = (
        click.option(
            "--matrix",
            "file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Play the trials of this file.",
        ),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            default=Path("try-matrix"),
            show_default=True,
            metavar="DIR",
            help="Where a matrix leaves results, logs and a page.",
        ),
        click.option(
            "--changed", is_flag=True, help="Of a matrix, only what is not done, or has changed since."
        ),
        click.option(
            "--jobs",
            type=click.IntRange(0, 16),
            default=0,
            show_default="by CPUs",
            help="Of a matrix, at a time.",
        ),
    )

    @functools.wraps(function)
    def command(file: Path | None, output: Path, changed: bool, jobs: int, **others: Any) -> Any:
        return function(matrix=MatrixChoice(file, output, changed, jobs), **others)

    decorated: Command = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
