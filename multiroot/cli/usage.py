# SPDX-License-Identifier: GPL-2.0-or-later
"""What click finds wrong with a command line, in plain English.

Where click's words are not those that this was written for, they are told as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import click

_NUMBER = re.compile(r"(?P<given>.+) is not a valid (?:(?P<whole>integer)|float)(?: range)?")
_RANGE = re.compile(
    r"(?P<given>.+) is not in the range (?:(?P<least>\S+?)<(?P<above>=?))?x(?:<(?P<below>=?)(?P<most>\S+))?"
)
_FROM = re.compile(r"(?P<given>.+) is not in the range x>(?P<above>=?)(?P<least>\S+)")
_CHOICE = re.compile(r"(?P<given>.+) is not one of (?P<choices>.+)")
_COMMAND = re.compile(r"No such command '(?P<word>.*?)'.*")
_EXTRA = re.compile(r"Got unexpected extra arguments? \((?P<words>.*)\)")


def told(error: click.ClickException) -> str:
    """One line, and where the command's options are told."""
    context = getattr(error, "ctx", None)
    message = " ".join(_say(error).split()).rstrip(".")
    return f"{message} (`{context.command_path} --help`)" if context else message


def _say(error: click.ClickException) -> str:
    match error:
        case click.NoSuchOption():
            return f"there is no option {error.option_name}" + _near(error.possibilities)
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message()
        case click.MissingParameter() if error.param is not None:
            more = f". {error.message}" if error.message else ""
            return f"{_name(error)} is missing{more}"
        case click.BadParameter():
            return f"{_name(error)}: {_value(error.message.rstrip('.'))}"
        case click.BadOptionUsage():
            if error.message.endswith("requires an argument."):
                return f"{error.option_name} needs a value"
            if error.message.endswith("does not take a value."):
                return f"{error.option_name} takes no value"
    if command := _COMMAND.fullmatch(error.message):
        return f"there is no command {command['word']}" + _near(getattr(error, "possibilities", ()))
    if extra := _EXTRA.match(error.message):
        return f"there is no use for: {extra['words']}"
    return error.format_message()


def _near(names: object) -> str:
    """What may be meant."""
    found = [str(name) for name in names] if isinstance(names, list | tuple) else []
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _name(error: click.BadParameter) -> str:
    """The option or argument that is meant."""
    if isinstance(error.param_hint, str):
        return error.param_hint.strip("'")
    if isinstance(error.param, click.Option):
        return max(error.param.opts, key=len)
    return argument_name(error.param) if error.param else "a value"


def argument_name(param: click.Parameter) -> str:
    """As usage lines have it."""
    return (param.metavar or (param.name or "").upper()).strip("[]")


def _value(message: str) -> str:
    """What is wrong with a value."""
    for pattern, say in _SAYINGS.items():
        if found := pattern.fullmatch(message):
            return say(found)
    return message


def _number(found: re.Match[str]) -> str:
    return f"{found['given']} is no {'whole ' if found['whole'] else ''}number"


def _from(found: re.Match[str]) -> str:
    return f"{found['given']} is too small: {_least(found)}"


def _range(found: re.Match[str]) -> str:
    if found["least"] is None:
        return f"{found['given']} is too large: {'at most' if found['below'] else 'below'} {found['most']}"
    if found["most"] is None:
        return _from(found)
    least = f"{'from' if found['above'] else 'above'} {found['least']}"
    return f"{found['given']} is no number {least} {'to' if found['below'] else 'and below'} {found['most']}"


def _least(found: re.Match[str]) -> str:
    return f"{'at least' if found['above'] else 'above'} {found['least']}"


def _choice(found: re.Match[str]) -> str:
    choices = found["choices"].replace("'", "")
    return f"{found['given']} is none of {choices}"


_SAYINGS: dict[re.Pattern[str], Callable[[re.Match[str]], str]] = {
    _NUMBER: _number,
    _FROM: _from,
    _RANGE: _range,
    _CHOICE: _choice,
}
