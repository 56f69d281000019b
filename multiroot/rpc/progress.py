# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a call that streams its progress: phases as they come, and the result at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from multiroot.errors import MultirootError
from multiroot.phases import Phase
from multiroot.rpc import phases as wire
from multiroot.rpc.v1 import coordinator_pb2


def follow(
    events: Iterable[coordinator_pb2.Progress],
    *show: Callable[[Phase], None],
    hear: Callable[[str], None] | None = None,
    handed: Callable[[coordinator_pb2.HandoffResult], None] | None = None,
    wanted: Collection[str] = (),
    empty: bool = False,
) -> coordinator_pb2.Progress:
    """Give every one of `show` each phase as it starts and as it ends, `hear` each line that a new root's
    kernel says, and `handed` each VM that has arrived; returns the message with the result, or with the last
    VM's. `wanted` names the events that are a result of this call; any that is none of the others, if empty.

    Raises MultirootError when the agent ends the call without a result, unless that is right (`empty`).
    """
    last: coordinator_pb2.Progress | None = None
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "phase":
            phase = wire.from_proto(event.phase)
            for each in show:
                each(phase)
        elif kind == "said":
            if hear:
                hear(event.said)
        elif kind in wanted or (kind and not wanted):
            last = event
            if kind == "handed_off" and handed:
                handed(event.handed_off)
    if last is None and empty:
        return coordinator_pb2.Progress()
    if last is None:
        raise MultirootError("the agent ended the call without a result", "see its log")
    return last


def ended(keep: Callable[[Phase], None]) -> Callable[[Phase], None]:
    """Gives `keep` only those phases that ended."""

    def only_ended(phase: Phase) -> None:
        if phase.duration_ns is not None:
            keep(phase)

    return only_ended
