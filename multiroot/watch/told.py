# SPDX-License-Identifier: GPL-2.0-or-later
"""What one agent tells, as messages: events of its own part of the facts, ticks, and beats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from multiroot.errors import BadRequestError
from multiroot.rpc.v1 import watch_pb2
from multiroot.vm.messages import ticks_from_proto, ticks_to_proto
from multiroot.vm.ticks import Stretch
from multiroot.watch.events import Change, State


@dataclass(frozen=True)
class Seen:
    """More ticks of a guest."""

    at: int
    vm: str
    stretch: Stretch


@dataclass(frozen=True)
class Beat:
    """Nothing new: the agent is alive."""

    at: int


Told = State | Change | Seen | Beat
NO_BEATS: Mapping[int, int] = {}


def to_proto(root: int, told: Told, beats: Mapping[int, int] = NO_BEATS) -> watch_pb2.WatchEvent:
    """The message by which root number `root` tells this; `beats`: since when its neighbours' hearts have
    beaten.
    """
    neighbours = [watch_pb2.HeartBeat(root=number, at_ns=at) for number, at in beats.items()]
    message = watch_pb2.WatchEvent(root=root, at_ns=told.at, neighbours=neighbours)
    match told:
        case State(_, document):
            message.state = json.dumps(document, separators=(",", ":"))
        case Change(_, patch):
            message.patch = json.dumps(patch, separators=(",", ":"))
        case Seen(_, vm, stretch):
            message.ticks.CopyFrom(watch_pb2.SeenTicks(name=vm, ticks=ticks_to_proto(stretch)))
        case Beat():
            message.beat.CopyFrom(watch_pb2.Beat())
    return message


def from_proto(message: watch_pb2.WatchEvent) -> Told:
    """What a message tells; raises BadRequestError for one that makes no sense."""
    at = message.at_ns
    make: Callable[[int, dict[str, Any]], Told]
    match message.WhichOneof("event"):
        case "state":
            text, make = message.state, State
        case "patch":
            text, make = message.patch, Change
        case "ticks":
            return Seen(at, message.ticks.name, ticks_from_proto(message.ticks.ticks))
        case _:
            return Beat(at)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"root {message.root}'s agent tells what is no JSON") from error
    if not isinstance(data, dict):
        raise BadRequestError(f"root {message.root}'s agent tells what is no JSON object")
    return make(at, data)
