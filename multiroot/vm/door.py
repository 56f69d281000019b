# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a root takes VMs. One whose update is committed takes none any more, for it is about to end."""

from __future__ import annotations

from multiroot.errors import ConflictError


class Door:
    """Open at first. Whoever shuts it looks at the owner words afterwards.

    Whoever brings a VM in makes this root its owner first and asks then. So one of the two sees the other.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._shut = False

    def shut(self) -> None:
        """Take no VM from now on."""
        self._shut = True

    def open(self) -> None:
        """Take VMs again."""
        self._shut = False

    def check(self) -> None:
        """Raises ConflictError when it is shut."""
        if self._shut:
            raise ConflictError(
                f"root {self._root} takes no VM any more: its update is committed, and it is about to end",
                "run it in the new root, with `multiroot vm run --root new`",
            )
