# SPDX-License-Identifier: GPL-2.0-or-later
"""The coordinator of this root's updates, and the adoption of what an earlier root leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc.aio

from multiroot.agent.canary_vm import CanaryKeeper
from multiroot.agent.context import Root
from multiroot.agent.guests import Guests
from multiroot.agent.handoffs import Handoffs
from multiroot.arena.layout import CANARY
from multiroot.coordinator.adoption import Adoption, AdoptionContext
from multiroot.coordinator.canary import Canary
from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.coordinator_service import CoordinatorParts, CoordinatorService
from multiroot.coordinator.crash import CrashWatch, Report
from multiroot.coordinator.join import Console
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.steps import LaunchContext, make_plan, make_steps, report
from multiroot.coordinator.update import UpdateContext, make_update_steps
from multiroot.errors import MultirootError
from multiroot.net.network import RootNetwork
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase
from multiroot.root.peers import Role, SideState
from multiroot.rpc import phases as wire
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc
from multiroot.storage.filesystems import Filesystem
from multiroot.storage.storage_service import to_proto

log = logging.getLogger("multirootd")

ANNOUNCE_S = 10.0  # the new root's agent may take so long to answer


class Updates:
    """Both halves of an update: this root as the one that starts another, and as the one that was started."""

    def __init__(
        self, root: Root, network: RootNetwork, guests: Guests, handoffs: Handoffs, journal: Journal
    ) -> None:
        self._root = root
        self._guests = guests
        self._handoffs = handoffs
        self._keeper = CanaryKeeper(root, guests, handoffs)
        self.canary = Canary(self._keeper.vm, root.phases)
        self._launch = LaunchContext(
            device=root.device,
            peers=root.peers,
            neighbours=root.neighbours,
            kernels=root.options.kernels,
            network=network,
            tsc_khz=root.tsc_khz,
            token=root.options.token,
            ended=self._new_root_ended,
            comes_for_vms=self.canary.boot_ahead,
        )
        update = UpdateContext(
            here=self._here,
            there=self.guests_there,
            hand_over=lambda names, terms: handoffs.hand_over(names, "new", terms, root.phases),
            hand_back=handoffs.hand_back,
            canary=self.canary.prove,
            remove_canary=self.canary.remove,
            announce=self._announce,
            shut_door=guests.shut_door,
            open_door=guests.open_door,
            staying=guests.staying_devices,
            check_wanted=lambda: self.coordinator.check_wanted(),
            settle_disks=guests.settle_disks,
            stop_disks=guests.stop_disks,
            come_to_disks=guests.come_to_disks,
            left_disks=root.options.run_dir / "left-disks.json",
            phases=root.phases,
            root=root.me.root,
            unbound=root.options.run_dir / "unbound.json",
            services=root.options.services,
        )
        steps = {**make_steps(self._launch), **make_update_steps(update)}
        self.coordinator = Coordinator(journal, steps, root.phases, self.guests_there, self._stay)
        self._crash_watch = CrashWatch(root.peers, self._end_is_news, self._report)
        self._watching: asyncio.Task[None] | None = None
        self.adoption = Adoption(
            AdoptionContext(
                phases=root.phases,
                ended=self._parent_ended,
                let_go=self._let_go,
                inherit_devices=guests.inherit_devices,
                come_to_disks=guests.come_to_disks,
                request=root.options.run_dir / "adoption",
                services=root.options.services,
                way_out=lambda: network.way_out(),  # there may be no network yet
            )
        )

    @property
    def console(self) -> Console:
        """What a new root's kernel says while it comes up."""
        return self._launch.console

    async def recover(self) -> None:
        """After a restart of the agent: go on adopting, and keep or take back an update under way."""
        if PhaseName.COMMIT in self.coordinator.begun:
            await self._guests.shut_door()
        self.adoption.resume()
        # An earlier agent made a new root. It may live and own VMs: look at it before anything is taken back.
        if PhaseName.CARVE in self.coordinator.begun and self._root.device.info().child_control:
            await self._root.neighbours.attach_child()
        child = self._root.peers.get(Role.CHILD)
        log.info("coordinator: %s", await self.coordinator.recover(alive=bool(child and child.ready)))
        await self._clear()
        self._watching = asyncio.create_task(self._crash_watch.run())

    def _end_is_news(self) -> bool:
        """Whether a new root that ends has done so by itself."""
        return self.coordinator.joined and not self.coordinator.standing.undoing

    def _report(self, child: int) -> Report:
        return report(self._launch, self.coordinator.data, child)

    async def close(self) -> None:
        """Watch no more."""
        if self._watching:
            self._watching.cancel()

    async def _clear(self) -> None:
        """No canary is under way: end one that an earlier agent has left."""
        if self._keeper.in_new_root:
            # Its agent may take its time to answer.
            self.canary.remove_later()
        elif self._keeper.ours:
            await self._remove_canary()

    async def _new_root_ended(self) -> None:
        """Its devices stop before anybody gets its memory. A canary that was in it is nobody's loss."""
        await asyncio.to_thread(self._guests.stop_devices)
        await self._remove_canary()

    async def _let_go(self) -> None:
        """The root that started this one has ended, maybe without a word."""
        parent = self._root.peers.get(Role.PARENT)
        await self._root.neighbours.detach_parent()
        if parent:
            await asyncio.to_thread(self._guests.part_from, parent.root)

    async def _remove_canary(self) -> None:
        """At once, or else in the background."""
        try:
            await self.canary.remove()
        except MultirootError as error:
            log.warning("%s", error)
            self.canary.remove_later()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer CoordinatorService."""
        parts = CoordinatorParts(
            coordinator=self.coordinator,
            adoption=self.adoption,
            phases=self._root.phases,
            plan=lambda request: make_plan(self._launch, request),
            hand_over=self._handoffs.hand_over,
            expect=self._handoffs.expect,
            cancel=self._cancel,
            console=self._launch.console,
            owners=self._guests.owners,
            root=self._root.me.root,
            crash=lambda: self._crash_watch.report,
            check_canary=self._keeper.check_room,
        )
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(CoordinatorService(parts), server)

    async def _cancel(self, name: str, *, here: bool) -> coordinator_pb2.CancelHandoffResponse:
        """The canary first: it is not to begin to go meanwhile."""
        waited = name in ("", CANARY) and self.canary.cancel()
        answer = await self._handoffs.cancel(name, here=here)
        if waited and CANARY not in (*answer.stay, *answer.gone):
            answer.stay.append(CANARY)
        return answer

    def _stay(self) -> None:
        self.canary.stay()
        self._handoffs.stay()

    def guests_there(self) -> list[str]:
        """VMs but the canary that the new root owns by their owner words; none when it has ended."""
        child = self._root.peers.get(Role.CHILD)
        owned = self._guests.owned_by(child.root) if child else []
        ended = child and owned and self._root.device.has_ended(child.root)
        return [] if ended else [name for name in owned if name != CANARY]

    def _here(self) -> list[str]:
        return self._guests.owned_by(self._root.me.root)

    async def _announce(
        self, phases: list[Phase], verify: bool, devices: Sequence[str], left: Sequence[Filesystem]
    ) -> None:
        """Tell the new root that this one ends, and how far it has come."""
        request = coordinator_pb2.TakeOverRequest(
            phases=[wire.to_proto(phase) for phase in phases],
            verify=verify,
            devices=devices,
            filesystems=[to_proto(filesystem) for filesystem in left],
        )
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._root.neighbours.channel("new"))
        with translated("the new root's agent"):
            await stub.TakeOver(request, timeout=ANNOUNCE_S)

    async def _parent_ended(self, timeout_s: float) -> bool:
        """True as soon as there is no parent, or it has ended; False after `timeout_s` seconds."""
        peers = self._root.peers

        def ended() -> bool:
            parent = peers.get(Role.PARENT)
            return parent is None or parent.state is SideState.PARKED

        return await peers.wait(ended, timeout_s)
