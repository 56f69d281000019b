# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way to fail: an exception with a message and a hint.

`multiroot.cli.program` prints it as one line on stderr and exits with the code of its class. Agents send it
as a gRPC status (`multiroot.rpc.status`), and the caller raises it again as it was. The first line of each
docstring is the meaning of the exit code in docs/cli.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MultirootError(Exception):
    """Something failed.

    `message` says what, `hint` says how to mend it; the hint may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadRequestError(MultirootError):
    """The request is wrong (unknown name, malformed value, bad image). Nothing was changed."""

    exit_code = 2


class ConflictError(MultirootError):
    """Something else holds what the request asks for. Nothing was changed."""

    exit_code = 3


class WaitTimeoutError(MultirootError):
    """Something that was waited for did not happen in time."""

    exit_code = 4


class PeerLostError(MultirootError):
    """The other root or its agent does not answer."""

    exit_code = 5


class StrangerError(MultirootError):
    """The agent does not know who calls."""

    exit_code = 6


class BugError(MultirootError):
    """Something unexpected: this is a bug. The message names the file to report it with."""

    exit_code = 70


class CommandError(MultirootError):
    """A program that we ran failed; `returncode` and `stderr` are those of the program."""

    def __init__(self, message: str, hint: str = "", *, returncode: int = -1, stderr: str = "") -> None:
        super().__init__(message, hint)
        self.returncode = returncode
        self.stderr = stderr


@contextmanager
def found_in(where: object) -> Iterator[None]:
    """What the body finds wrong is wrong in this file, or whatever else a person has written: it is named."""
    try:
        yield
    except BadRequestError as error:
        raise BadRequestError(f"{where}: {error.message}", error.hint) from error
