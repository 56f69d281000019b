# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way to fail: an exception with a message and a hint.

`multiroot.cli.main` turns any of these into one line on stderr and the class's exit code; agents turn
them into a gRPC status and back (`multiroot.rpc.status`), so a refusal in the other root reads the same here.
"""

from __future__ import annotations


class MultirootError(Exception):
    """Something failed; `message` says what, `hint` says how to mend it (may be empty)."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadRequestError(MultirootError):
    """The request itself is wrong (unknown name, malformed value, bad image); nothing was changed."""

    exit_code = 2


class ConflictError(MultirootError):
    """The request is well formed but something already holds what it asks for; nothing was changed."""

    exit_code = 3


class WaitTimeoutError(MultirootError):
    """Something that should have happened did not happen in time."""

    exit_code = 4


class PeerLostError(MultirootError):
    """The other root (or its agent) is gone."""

    exit_code = 5


class CommandError(MultirootError):
    """A program we ran failed; `returncode` and `stderr` are its own."""

    def __init__(self, message: str, hint: str = "", *, returncode: int = -1, stderr: str = "") -> None:
        super().__init__(message, hint)
        self.returncode = returncode
        self.stderr = stderr
