# SPDX-License-Identifier: GPL-2.0-or-later
"""How one part of the planner says no: what is wrong, and the request with just that part mended."""

from __future__ import annotations

from multiroot.plan.request import Request


class Refusal(Exception):
    """Never leaves the planner, which first tries whether `mended` leads to a plan.

    `conflict`: something on this machine is in the way, as opposed to a request that makes no sense.
    """

    def __init__(
        self, message: str, hint: str = "", *, conflict: bool, mended: Request | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.conflict = conflict
        self.mended = mended
