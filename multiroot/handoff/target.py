# SPDX-License-Identifier: GPL-2.0-or-later
"""Where VMs are to go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

# Returns when the taker's root is known to be gone, which a connection to it may never tell.
Lost = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Target:
    """The root that is to take VMs: its number, its agent, its name in commands, and how its end is known."""

    root: int
    agent: grpc.aio.Channel
    name: str = "new"
    lost: Lost | None = None
