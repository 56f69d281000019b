# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing one VM to another root, or having it handed back."""

from __future__ import annotations

import asyncio

from multiroot.agent.context import Root
from multiroot.agent.guests import Guests
from multiroot.errors import PeerLostError
from multiroot.handoff.giver import hand_over
from multiroot.phases import Phases
from multiroot.root.peers import Role
from multiroot.rpc import phases as wire
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc


class Handoffs:
    """Handoffs between this root and the roots beside it."""

    def __init__(self, root: Root, guests: Guests) -> None:
        self._root = root
        self._guests = guests

    async def hand_over(self, name: str, to: str, phases: Phases) -> coordinator_pb2.HandoffResult:
        """Hand the VM `name` to the root called `to`; what `handoff.giver.hand_over` returns and raises.

        Raises PeerLostError, with nothing begun, when that root is known to be gone.
        """
        manager, peers = self._guests.manager, self._root.peers
        taker = peers.by_name(to)
        if taker.gone:
            # Nothing is begun, so the owner word stays as it is.
            hint = "take back what it had: `multiroot root release`" if taker.role is Role.CHILD else ""
            raise PeerLostError(f"the {to} root is gone", hint)

        async def lost() -> object:
            return await peers.wait(lambda: taker.gone or peers.get(taker.role) is not taker, None)

        channel = self._root.neighbours.channel(to)
        return await hand_over(manager, name, channel, taker.root, phases, lost)

    async def hand_back(self, name: str) -> None:
        """Have the new root hand the VM `name` to this one, and publish its phases here.

        Raises PeerLostError when nothing has been heard of that root for some seconds.
        """
        peers = self._root.peers
        giver = peers.by_name("new")
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._root.neighbours.channel("new"))
        call = stub.Handoff(coordinator_pb2.HandoffRequest(name=name, to="old"))

        async def follow() -> None:
            with translated("the new root's agent"):
                async for progress in call:
                    if progress.WhichOneof("event") == "phase":
                        self._root.phases.publish(wire.from_proto(progress.phase))

        following = asyncio.create_task(follow())
        watching = asyncio.create_task(peers.wait(lambda: giver.gone, None))
        try:
            await asyncio.wait({following, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                raise PeerLostError(f"the new root does not answer, and {name} is in it")
            await following
        finally:
            following.cancel()
            watching.cancel()
