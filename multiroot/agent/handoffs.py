# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing VMs to another root, or having them handed back, and putting an end to that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from multiroot.agent import memory
from multiroot.agent.context import Root
from multiroot.agent.guests import Guests
from multiroot.arena.layout import CANARY
from multiroot.errors import MultirootError, PeerLostError
from multiroot.handoff import terms as handoff_terms
from multiroot.handoff.evacuation import Evacuation, Leg, Outcome
from multiroot.handoff.expecting import expect, expect_no_more
from multiroot.handoff.target import Target
from multiroot.handoff.terms import PATIENT, Terms
from multiroot.phases import Phases
from multiroot.racing import OvertakenError, unless
from multiroot.root.peers import Role
from multiroot.rpc import phases as wire
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc
from multiroot.watch.handoff_log import HandoffLog

log = logging.getLogger("multirootd")

CANCEL_S = 60.0  # by then it is settled who runs a VM


class Handoffs:
    """Handoffs between this root and the roots beside it."""

    def __init__(self, root: Root, guests: Guests) -> None:
        self._root = root
        self._guests = guests
        self._under_way: dict[str, Leg] = {}
        self.log = HandoffLog(root.me.root, root.clock, root.news.ring)

    async def hand_over(
        self,
        names: Sequence[str],
        to: str,
        terms: Terms,
        phases: Phases,
        done: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        """Hand VMs to the root called `to`; what became of each.

        `done` is told of each as soon as it is known. Raises PeerLostError when that root is known to be
        gone, BadRequestError for a name that no VM has; nothing is begun then.
        """
        manager, target = self._guests.manager, self._target(to)

        def settled(outcome: Outcome) -> None:
            self.log.end(outcome.name, outcome.result, outcome.error)
            done(outcome)

        evacuation = Evacuation(manager, names, target, phases, terms, settled)
        for entry in manager.host.arena.vms() if evacuation.legs else ():
            if entry.name in evacuation.legs and entry.name != CANARY:
                self.log.begin(entry.name, target.root, entry.owner.epoch)
        self._under_way |= evacuation.legs
        try:
            return await evacuation.run()
        finally:
            for name in evacuation.legs:
                del self._under_way[name]
            if not self._under_way:
                memory.tidy()

    async def expect(
        self, names: Sequence[str], to: str, phases: Phases, at_once: int, *, undo: bool = False
    ) -> list[Outcome]:
        """Have the root called `to` start VMMs for VMs that are handed over later, or end those; what became
        of each. Raises what `hand_over` raises.
        """
        manager, target = self._guests.manager, self._target(to)
        if not undo:
            return await expect(manager, names, target, phases, at_once)
        await expect_no_more(names, target)
        return []

    def _target(self, to: str) -> Target:
        """Raises PeerLostError when that root is known to be gone: nothing is begun, and the owner words stay
        as they are.
        """
        peers = self._root.peers
        taker = peers.by_name(to)
        if taker.gone:
            hint = "take back what it had: `multiroot root release`" if taker.role is Role.CHILD else ""
            raise PeerLostError(f"the {to} root is gone", hint)

        async def lost() -> object:
            return await peers.wait(lambda: taker.gone or peers.get(taker.role) is not taker, None)

        return Target(taker.root, self._root.neighbours.channel(to), to, lost)

    def stay(self) -> None:
        """VMs that wait for their turn to be handed over stay; nobody is waited for."""
        for leg in self._under_way.values():
            if not leg.turn.is_set():
                leg.cancelled.set()

    async def cancel(self, name: str, *, here: bool) -> coordinator_pb2.CancelHandoffResponse:
        """Have the VM `name` stay that is being handed over, or all if it is "".

        Unless `here`, also those that the new root gives. Returns when it is settled where each runs.
        """
        answer = coordinator_pb2.CancelHandoffResponse()
        legs = {each: leg for each, leg in self._under_way.items() if name in ("", each)}
        for leg in legs.values():
            leg.cancelled.set()
        for each, leg in legs.items():
            await leg.settled.wait()
            owner = self._guests.owners().get(each, self._root.me.root)
            (answer.stay if owner == self._root.me.root else answer.gone).append(each)
        child = self._root.peers.get(Role.CHILD)
        if here or (name and legs) or not (child and child.ready):
            return answer
        try:
            answer.MergeFrom(await self._cancel_there(name))
        except MultirootError as error:
            if not legs:
                raise
            # It may be why these were cancelled.
            log.warning("whether the new root gives VMs is not known: %s", error)
        return answer

    async def _cancel_there(self, name: str) -> coordinator_pb2.CancelHandoffResponse:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._root.neighbours.channel("new"))
        request = coordinator_pb2.CancelHandoffRequest(name=name, here=True)
        with translated("the new root's agent"):
            return await stub.CancelHandoff(request, timeout=CANCEL_S)

    async def hand_back(self, names: Sequence[str], phases: Phases | None = None) -> None:
        """Have the new root hand VMs to this one, however long they stand still, and publish its phases, in
        `phases` if given.

        Raises PeerLostError when nothing has been heard of that root for some seconds.
        """
        peers, shown = self._root.peers, phases or self._root.phases
        giver = peers.by_name("new")
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._root.neighbours.channel("new"))
        request = coordinator_pb2.HandoffRequest(names=names, to="old", terms=handoff_terms.to_proto(PATIENT))
        call = stub.Handoff(request)

        async def follow() -> None:
            with translated("the new root's agent"):
                async for progress in call:
                    if progress.WhichOneof("event") == "phase":
                        shown.publish(wire.from_proto(progress.phase))

        try:
            await unless(follow(), peers.wait(lambda: giver.gone, None))
        except OvertakenError:
            lost = f"the new root does not answer, and {', '.join(names)} is in it"
            raise PeerLostError(lost) from None
