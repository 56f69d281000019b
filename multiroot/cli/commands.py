# SPDX-License-Identifier: GPL-2.0-or-later
"""What every command of multiroot has beyond click: an example in its help, and groups that import late."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from multiroot.cli.usage import argument_name

if TYPE_CHECKING:
    from multiroot.lab.state import LabState

_SENTENCE = 200  # characters; click would cut the first sentence of a help text at 45


@dataclass
class Run:
    """What the main program wants to know of the command that runs: its `failure`, and the `lab` whose agent
    it has asked, if it has.
    """

    failure: int = 0
    lab: LabState | None = None


class MayBeEmpty(click.Option):
    """An option of which the empty word says something; given to any other it is a mistake, such as that of a
    script whose variable has no value.
    """


class Command(click.Command):
    """A command whose help ends with `example`, a command line that can be typed as it is.

    `failure`, unless 0, is what it exits with when it cannot do what it is for, whatever the reason.
    """

    def __init__(self, *args: Any, example: str = "", failure: int = 0, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.example = example
        self.failure = failure

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        run = parent.find_object(Run) if parent else None
        if run:
            run.failure = self.failure
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        left = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _refuse_empty(self, ctx, given)
        return left

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(self.example, formatter)


def _refuse_empty(command: click.Command, ctx: click.Context, given: Mapping[str, Any]) -> None:
    """Raises UsageError for an empty word in place of a value: the default would be taken, untold."""
    for param in command.params:
        words = given.get(param.name or "")
        if isinstance(param, MayBeEmpty) or not (
            words == "" or (_is_repeated(param) and "" in (words or ()))
        ):
            continue
        name = param.opts[0] if isinstance(param, click.Option) else argument_name(param)
        raise click.UsageError(f"{name} is empty: leave it out, or say what it is.", ctx)


def _is_repeated(param: click.Parameter) -> bool:
    """An option that may be given several times; many arguments are words of another program's."""
    return isinstance(param, click.Option) and param.multiple


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
