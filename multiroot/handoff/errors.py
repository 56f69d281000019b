# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a VM stays where it is."""

from __future__ import annotations

from multiroot.errors import MultirootError, WaitTimeoutError


class GivenUpError(MultirootError):
    """The handoff was cancelled."""


class OverdueError(WaitTimeoutError):
    """The guest stood still for as long as it may, `limit_ms`, and goes on in the giver."""

    def __init__(self, message: str, hint: str = "", limit_ms: int = 0) -> None:
        super().__init__(message, hint)
        self.limit_ms = limit_ms
