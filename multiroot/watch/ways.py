# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to agents: each follows one agent's stream, and begins again when that breaks or falls silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import grpc
import grpc.aio

from multiroot.errors import BadRequestError, MultirootError, PeerLostError
from multiroot.rpc import status
from multiroot.rpc.border import ANSWER_MOST
from multiroot.rpc.client import Address
from multiroot.rpc.server import ROOT_KEY
from multiroot.rpc.token import TOKEN_KEY
from multiroot.rpc.v1 import watch_pb2, watch_pb2_grpc

SILENT_S = 0.9  # after which an agent that has spoken is silent; it says something every 0.3 s
# A root whose heart its neighbour sees beat is not silent, though what its agent tells is late: it may be on
# its way through that neighbour. So long what was told last is good enough.
LATE_S = 3.0
# After which its stream is given up. One that was only stopped, or has no CPU, goes on in the same one, and
# a new one costs it more.
PATIENCE_S = 5.0
# Nobody tells when there is an agent again. An emulated machine has better things to do than to refuse.
AGAIN_S, AGAIN_MOST_S = 0.3, 1.5

Messages = AsyncIterator[watch_pb2.WatchEvent]
Since = Mapping[str, int]  # of guests: when the newest tick was seen that is known here (TSC clock, ns)
Open = Callable[[int | None, Since], Messages]
Hear = Callable[[watch_pb2.WatchEvent], None]


def opener(address: Address) -> Open:
    """Opens streams through the agent at `address`: its own root's, or that of the root with a number."""

    async def stream(root: int | None, since: Since) -> Messages:
        # A connection of its own each time: an old one may hang on a peer that is gone without a word.
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", ANSWER_MOST))
        said = [] if root is None else [(ROOT_KEY, str(root))]
        if address.token:
            said.append((TOKEN_KEY, address.token))
        async with grpc.aio.insecure_channel(address.target, options=options) as channel:
            stub = watch_pb2_grpc.WatchServiceStub(channel)
            call = stub.Watch(watch_pb2.WatchRequest(ticks_since=since), metadata=said)
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()

    return stream


class Way:
    """Follows one agent until it is closed."""

    def __init__(
        self, open_stream: Open, root: int | None, hear: Hear, since: Callable[[], Since] = dict
    ) -> None:
        """To the agent of the root with that number, None: to whichever answers there. It is asked for the
        ticks `since`.
        """
        self.root = root
        self.error: MultirootError | None = None  # why the last try ended
        self.tried = asyncio.Event()  # something was heard, or a try has failed
        self._open = open_stream
        self._hear = hear
        self._since = since
        self.task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Hear no more."""
        self.task.cancel()
        await asyncio.wait({self.task})

    async def _run(self) -> None:
        pause = AGAIN_S
        while True:
            before = self.error
            try:
                await self._follow()
                self.error = PeerLostError("the agent has ended the stream")
            except TimeoutError:
                self.error = PeerLostError("the agent says nothing")
            except grpc.RpcError as error:
                self.error = status.decode(error, "the agent")
            except BadRequestError as error:
                self.error = error
            self.tried.set()
            pause = min(2 * pause, AGAIN_MOST_S) if before else AGAIN_S
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        messages = aiter(self._open(self.root, self._since()))
        while True:
            async with asyncio.timeout(PATIENCE_S):
                message = await anext(messages, None)
            if message is None:
                return
            self._hear(message)
            self.error = None
            self.tried.set()
