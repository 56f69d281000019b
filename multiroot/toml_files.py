# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files that a person has written: read, or refused in one line that names the file and, if TOML tells
it, the line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from multiroot.errors import BadRequestError

LONGEST = 1 << 20  # bytes; nobody writes that much, but a wrong path may name a disk

_SHOWN = 200  # characters of a message that holds what is in a file
_WHERE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)")


def read(path: Path) -> dict[str, Any]:
    """The tables of a file. Raises FileNotFoundError, for the caller knows what is missing, and
    BadRequestError for everything else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadRequestError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > LONGEST:
        raise BadRequestError(f"{path} is larger than {LONGEST >> 20} MiB")
    return parsed(path, decoded(path, data))


def shortened(message: str) -> str:
    """A message, without the end of what it quotes if that is very long."""
    return message if len(message) <= _SHOWN else f"{message[:_SHOWN]}..."


def decoded(path: object, data: bytes) -> str:
    """The text of a file; raises BadRequestError."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRequestError(
            f"{path} is not UTF-8: line {line} has the byte {data[error.start]:#04x}"
        ) from error


def parsed(path: object, text: str) -> dict[str, Any]:
    """The data in a text that came from `path`; raises BadRequestError."""
    import tomllib  # agents want the rest of this module alone

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise BadRequestError(f"{path} is not valid TOML: it is nested too deeply") from error
    except ValueError as error:  # the parser's own, or that of a number with thousands of digits
        raise BadRequestError(f"{path} is not valid TOML: {_located(str(error), text)}") from error


def _located(message: str, text: str) -> str:
    """The parser's message with the line that it means: it does not name the key."""
    where = _WHERE.search(message)
    if where is None:
        return shortened(message)
    told = shortened(_WHERE.sub("", message))
    number = int(where[1]) if where[1] else text.count("\n") + 1
    return f"{told} in {line_of(text, number)}"


def line_of(text: str, number: int) -> str:
    """A line of a text in words, with what is in it; the last one if there are fewer."""
    lines = text.rstrip().split("\n")
    number = min(number, len(lines))
    return f"line {number}: {shortened(lines[number - 1].strip())!r}"
