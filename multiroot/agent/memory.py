# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent lives for months and must not grow. What it drops that still points at itself, Python has to find.

By itself Python does so at any time, when much has come together: in the middle of a blackout, too. It goes
through all that the agent has, most of it modules that were imported at the start.
"""

from __future__ import annotations

import gc


def begin() -> None:
    """From now on, look for garbage only in what is made from now on."""
    gc.collect()
    gc.freeze()


def tidy() -> None:
    """Look for garbage now, when no guest stands still: a handoff leaves tasks, errors and connections."""
    gc.collect()
