# SPDX-License-Identifier: GPL-2.0-or-later
"""A command line as the kernel reads it (lib/cmdline.c, kernel/params.c): quotes, names, where it ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multiroot.errors import BadRequestError

# Spaces inside of double quotes do not separate. The quotes may begin anywhere in a word.
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')
_END = "--"  # what follows is for init


@dataclass(frozen=True)
class Parameter:
    """`name` and `value` as the kernel sees them, without quotes; `text` as it was written.

    `value` is None for "quiet" and empty for "quiet=".
    """

    name: str
    value: str | None
    text: str

    @property
    def key(self) -> str:
        """The name with underscores only: the kernel takes dashes and underscores for the same."""
        return key(self.name)


def key(name: str) -> str:
    """How names are compared."""
    return name.replace("-", "_")


def split(line: str) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    """The parameters for the kernel, and the words behind "--", which are init's.

    BadRequestError when a quote is not closed: all that follows would be one value.
    """
    if line.count('"') % 2:
        raise BadRequestError("command line: a quote is not closed", 'write it like name="a value"')
    words = _WORD.findall(line)
    parameters = [_parameter(word) for word in words]
    for at, parameter in enumerate(parameters):
        if parameter.value is None and parameter.name == _END:
            return tuple(parameters[:at]), tuple(words[at + 1 :])
    return tuple(parameters), ()


def join(parameters: tuple[Parameter, ...], for_init: tuple[str, ...]) -> str:
    """The inverse of `split`."""
    words = [parameter.text for parameter in parameters]
    return " ".join([*words, _END, *for_init] if for_init else words)


def _parameter(text: str) -> Parameter:
    """One word of a command line. Quotes are dropped around the whole and around the value, nowhere else."""
    body = text[1:] if text.startswith('"') else text
    equals = body.find("=", 1)  # a name has a character at least
    name, value = (body[:equals], body[equals + 1 :]) if equals > 0 else (body, None)
    closed = body.endswith('"') and (body != text or (value or "").startswith('"'))
    if value is None:
        return Parameter(name[:-1] if closed else name, None, text)
    value = value.removesuffix('"') if closed else value
    return Parameter(name, value.removeprefix('"'), text)
