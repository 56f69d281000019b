# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command is described, by its help and by docs/cli.md, and its example is a command that exists."""

from __future__ import annotations

import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from multiroot.cli import reference
from multiroot.cli.commands import Command, Group
from multiroot.cli.program import COMMANDS, cli

TREE = list(reference.walk(cli, ("multiroot",)))
# Groups that do something without a subcommand are commands too.
RUNNABLE = [
    pytest.param(path, command, id=" ".join(path[1:]))
    for path, command in TREE
    if not isinstance(command, click.Group) or command.invoke_without_command
]


def parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """The context of the command that `line` would run; raises click's UsageError."""
    seen: list[click.Context] = []
    monkeypatch.setattr(click.Command, "invoke", lambda _, context: seen.append(context))
    program, *words = shlex.split(line)
    assert program == "multiroot"
    cli.main(words, prog_name=program, standalone_mode=False)
    return seen[-1]


def test_the_reference_is_up_to_date() -> None:
    """If not: python -m multiroot.cli.reference."""
    assert reference.FILE.read_text() == reference.generate()


@pytest.mark.parametrize(("path", "command"), TREE, ids=[" ".join(path) for path, _ in TREE])
def test_commands_and_their_options_have_help(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    for param in command.params:
        assert isinstance(param, click.Argument) or getattr(param, "help", ""), param.name


@pytest.mark.parametrize(("path", "command"), RUNNABLE)
def test_examples_can_be_typed(
    path: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(command, Command | Group)
    assert command.example
    context = parsed(command.example, monkeypatch)
    assert context.command is command
    assert context.command_path == " ".join(path)


@pytest.mark.parametrize("line", ["multiroot vm walk vm0", "multiroot vm run", "multiroot vm list --rot new"])
def test_what_does_not_parse_is_noticed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.UsageError):
        parsed(line, monkeypatch)


@pytest.mark.parametrize(("path", "command"), RUNNABLE)
def test_help_ends_with_the_example(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Command | Group)
    done = CliRunner().invoke(cli, [*path[1:], "--help"], terminal_width=60)
    assert done.exit_code == 0
    assert done.output.endswith(f"\nExample:\n  {command.example}\n")


@pytest.mark.parametrize("path", [(), ("lab",), ("root",)], ids=["multiroot", "lab", "root"])
def test_lists_of_commands_agree_with_the_commands(path: tuple[str, ...]) -> None:
    """They are written down a second time where a command is not imported to be listed."""
    group = dict(TREE)["multiroot", *path]
    assert isinstance(group, Group)
    assert group.lazy
    for name, (_, text) in group.lazy.items():
        assert text == dict(TREE)["multiroot", *path, name].get_short_help_str(1000)
        listed = " ".join(CliRunner().invoke(cli, [*path, "--help"]).output.split())
        assert f"{name} {text}" in listed


def test_listing_commands_imports_none() -> None:
    code = (
        "import sys\nfrom multiroot.cli.program import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith('multiroot.cli.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)
    assert done.stderr.strip() == "['multiroot.cli.usage', 'multiroot.cli.commands', 'multiroot.cli.program']"
