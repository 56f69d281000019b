# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of the arena."""

from __future__ import annotations

from multiroot.errors import ConflictError


class FencedError(ConflictError):
    """The owner word does not hold what the caller expected, so the caller may not run this VM.

    `root` and `epoch` are what the word holds.
    """

    def __init__(self, message: str, *, root: int, epoch: int) -> None:
        super().__init__(message, "the owner in the arena decides who runs it")
        self.root = root
        self.epoch = epoch
