# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that stream progress: phases are shown, the result is returned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from multiroot.cli.agent import goes_on
from multiroot.cli.output import Progress
from multiroot.phases import Phase
from multiroot.rpc.progress import follow
from multiroot.rpc.v1 import coordinator_pb2


def progress_call(
    events: Iterable[coordinator_pb2.Progress],
    *also: Callable[[Phase], None],
    wanted: Collection[str],
    empty: bool = False,
    handed: Callable[[coordinator_pb2.HandoffResult], None] | None = None,
    look: str = "`multiroot update show` shows it",
) -> coordinator_pb2.Progress:
    """Show each phase when it comes, and pass it to `also`; show what a new root's kernel says. Returns the
    message that has the result, which is one of the events `wanted`. `handed` gets each VM that has arrived.
    `empty`: there may be no result.

    Agents bring to an end what they have begun. Who leaves this command is told so, and `look`: what to do.
    """
    with goes_on(look), Progress().live() as show:
        return follow(events, show, *also, hear=show.hear, handed=handed, wanted=wanted, empty=empty)


def released_json(result: coordinator_pb2.ReleaseResult) -> dict[str, Any]:
    """What was given back, as data; `lost` names VMs."""
    return {
        "cpus": result.cpus,
        "memory_bytes": result.memory_bytes,
        "lost": list(result.lost),
        "idle": result.idle,
    }
