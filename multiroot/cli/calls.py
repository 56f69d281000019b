# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that stream progress: phases are shown, the result is returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from multiroot.cli.output import Progress
from multiroot.errors import MultirootError
from multiroot.phases import Phase
from multiroot.rpc import phases as wire
from multiroot.rpc.v1 import coordinator_pb2


def progress_call(
    events: Iterable[coordinator_pb2.Progress], also: Callable[[Phase], None] | None = None
) -> coordinator_pb2.Progress:
    """Show each phase when it comes, and pass it to `also`. Returns the message that has the result."""
    last: coordinator_pb2.Progress | None = None
    with Progress().live() as show:
        for event in events:
            if event.WhichOneof("event") == "phase":
                phase = wire.from_proto(event.phase)
                show(phase)
                if also:
                    also(phase)
            else:
                last = event
    if last is None:
        raise MultirootError("the agent ended the call without a result", "see its log")
    return last
