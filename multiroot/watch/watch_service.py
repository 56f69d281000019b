# SPDX-License-Identifier: GPL-2.0-or-later
"""WatchService: what this root knows, as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from multiroot.rpc.v1 import watch_pb2, watch_pb2_grpc
from multiroot.watch.teller import Teller
from multiroot.watch.told import to_proto


class WatchService(watch_pb2_grpc.WatchServiceServicer):
    """Any number of callers; gRPC lets the next message wait until the last one is on its way."""

    def __init__(self, root: int, teller: Teller, beats: Callable[[], Mapping[int, int]] = dict) -> None:
        """`root` is this root's number; `beats` says since when which neighbour's heart has beaten."""
        self._root = root
        self._teller = teller
        self._beats = beats

    async def Watch(
        self, request: watch_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[watch_pb2.WatchEvent]:
        async with aclosing(self._teller.tell(dict(request.ticks_since))) as events:
            async for told in events:
                yield to_proto(self._root, told, self._beats())
