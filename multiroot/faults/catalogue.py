# SPDX-License-Identifier: GPL-2.0-or-later
"""All faults, and how to choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from multiroot.errors import BadRequestError
from multiroot.faults import handoffs, launches
from multiroot.faults.fault import Fault


def all_faults() -> list[Fault]:
    """In the order in which a run takes them: what ends a root, or needs none, comes late."""
    return [*handoffs.all_faults(), *launches.all_faults(), *handoffs.old_root_ends()]


def chosen(names: Sequence[str], *, short: bool = False) -> list[Fault]:
    """Those whose name matches one of `names` (with * and ?), all if there are none; BadRequestError."""
    faults = all_faults()
    for name in names:
        if not any(fnmatchcase(fault.name, name) for fault in faults):
            raise BadRequestError(f"no fault called {name!r}", "`multiroot lab fault list` shows them")
    wanted = [fault for fault in faults if not names or any(fnmatchcase(fault.name, each) for each in names)]
    return [fault for fault in wanted if fault.short or not short]
