# SPDX-License-Identifier: GPL-2.0-or-later
"""What every command of multiroot has beyond click: an example in its help, and groups that import late."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

_SENTENCE = 200  # characters; click would cut the first sentence of a help text at 45


class Command(click.Command):
    """A command whose help ends with `example`, a command line that can be typed as it is."""

    def __init__(self, *args: Any, example: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(self.example, formatter)


class Group(click.Group):
    """A group of such commands. `example` is for a group that also works without a subcommand.

    `lazy` names further commands: NAME -> ("module:attribute", its first line of help). Their modules are
    imported when the command is used, because imports take long in a root that runs under emulation.
    """

    command_class = Command
    group_class = type

    def __init__(
        self,
        *args: Any,
        example: str = "",
        lazy: Mapping[str, tuple[str, str]] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.example = example
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        texts = {name: text for name, (_, text) in self.lazy.items()}
        for name, command in self.commands.items():
            texts[name] = command.get_short_help_str(_SENTENCE)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(texts.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(self.example, formatter)


def write_example(example: str, formatter: click.HelpFormatter) -> None:
    """Add the section "Example", on one line however long it is."""
    if example:
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")
