# SPDX-License-Identifier: GPL-2.0-or-later
"""What servers of disks have in common, whatever they speak."""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.errors import ConflictError

ANSWER_S = 5.0  # a server may take so long for each answer


class ServerGoneError(ConflictError):
    """Nobody who serves disks answers there."""


@dataclass(frozen=True)
class Export:
    """A disk as its server shows it: its size in bytes, and what it begins with."""

    size: int
    read_only: bool
    head: bytes
