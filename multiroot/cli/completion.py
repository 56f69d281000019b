# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot completion`: click's completion scripts under a name that can be found."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from multiroot.cli.commands import Command
from multiroot.errors import BadRequestError


@click.command(cls=Command, example="multiroot completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    Source it where your shell starts: `. <(multiroot completion bash)`.
    """
    from multiroot.cli.program import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise BadRequestError(f"no completion for {shell}")
    click.echo(kind(cli, {}, "multiroot", "_MULTIROOT_COMPLETE").source())
