# SPDX-License-Identifier: GPL-2.0-or-later
"""Refusals of the arena."""

from __future__ import annotations

from multiroot.errors import ConflictError


class FencedError(ConflictError):
    """The owner word is not what the caller believed: someone else may run this VM now, the caller may not.

    `root` and `epoch` are what the word holds.
    """

    def __init__(self, message: str, *, root: int, epoch: int) -> None:
        super().__init__(message, "the owner in the arena decides who runs it")
        self.root = root
        self.epoch = epoch
