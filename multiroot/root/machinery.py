# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent does beyond answering: VMs, handoffs, the coordinator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc.aio

from multiroot.arena.arena import Arena, open_or_format
from multiroot.arena.backing import find_device
from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.heir import Heir
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.service import CoordinatorService
from multiroot.coordinator.steps import LaunchContext, make_plan, make_steps
from multiroot.coordinator.update import UpdateContext, make_update_steps
from multiroot.errors import MultirootError, PeerLostError
from multiroot.handoff.giver import hand_over
from multiroot.handoff.handoff_service import HandoffService
from multiroot.handoff.taker import Taker
from multiroot.net.network import RootNetwork
from multiroot.passthrough.devices import Devices
from multiroot.phases import Phase, Phases
from multiroot.root.identity import FIRST_ROOT
from multiroot.root.peers import Role, SideState
from multiroot.rpc import phases as wire
from multiroot.rpc.client import link_address
from multiroot.rpc.server import Refusal
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc, handoff_pb2_grpc, vm_pb2_grpc
from multiroot.vm.instance import Host
from multiroot.vm.manager import VmManager
from multiroot.vm.qemu.vmm import QemuFactory
from multiroot.vm.vm_service import VmService

if TYPE_CHECKING:
    from multiroot.root.agent import Root

log = logging.getLogger("multirootd")

ANNOUNCE_S = 10.0  # seconds the new root's agent may take to answer


class Machinery:
    """The parts, wired together."""

    def __init__(self, root: Root, network: RootNetwork, manager: VmManager | MultirootError) -> None:
        """`manager` may be the reason why this root can't run VMs; the rest works without."""
        self._root = root
        self._network = network
        self._manager = manager
        self._taker = (
            Taker(manager, root.phases.side, link_address(root.me.root))
            if isinstance(manager, VmManager)
            else None
        )
        context = LaunchContext(
            device=root.device,
            peers=root.peers,
            neighbours=root.neighbours,
            kernels=root.options.kernels,
            network=network,
            tsc_khz=root.tsc_khz,
        )
        self._context = context
        update = UpdateContext(
            here=self.owned,
            there=self._handed_on,
            hand_over=lambda name: self._hand_over(name, "new", root.phases),
            hand_back=self._hand_back,
            announce=self._announce,
            phases=root.phases,
            services=root.options.services,
        )
        self.coordinator = Coordinator(
            Journal(), {**make_steps(context), **make_update_steps(update)}, root.phases
        )
        self.heir = Heir(
            root.phases,
            self._parent_ended,
            root.neighbours.detach_parent,
            root.options.run_dir / "heir",
            root.options.services,
        )

    @classmethod
    async def bring_up(cls, root: Root) -> Machinery:
        """Network first (the link takes a moment), then the arena and the VMs an earlier agent left."""
        network = RootNetwork(root.me.root)
        await network.start()
        manager: VmManager | MultirootError
        try:
            arena = await asyncio.to_thread(_open_arena, root)
        except MultirootError as error:
            log.warning("no VMs here: %s", error)
            manager = error
        else:
            host = Host(
                root=root.me.root,
                arena=arena,
                clock=root.clock,
                run_dir=root.options.run_dir / "vms",
                vmm=QemuFactory(),
                network=network,
                devices=Devices(arena, root.me.root),
                guests=root.options.guests,
            )
            manager = VmManager(host)
            await manager.adopt()
        made = cls(root, network, manager)
        child = root.peers.get(Role.CHILD)
        made.heir.resume()
        log.info("coordinator: %s", await made.coordinator.recover(alive=bool(child and child.ready)))
        return made

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer the services on `server`; one that is running already takes them too."""
        service = CoordinatorService(
            self.coordinator,
            self._root.phases,
            lambda request: make_plan(self._context, request),
            self._hand_over,
            self._handed_on,
            self.heir,
            self._root.me.root,
        )
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(service, server)
        if isinstance(self._manager, MultirootError):
            names = ("multiroot.v1.VmService", "multiroot.v1.HandoffService")
            server.add_generic_rpc_handlers([Refusal(name, self._manager) for name in names])
            return
        assert self._taker is not None
        vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(self._manager), server)
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(HandoffService(self._taker), server)

    async def close(self) -> None:
        """Let go; VMs go on."""
        if self._taker:
            await self._taker.close()
        await self._network.close()

    async def _hand_over(self, name: str, to: str, phases: Phases) -> coordinator_pb2.HandoffResult:
        if isinstance(self._manager, MultirootError):
            raise self._manager
        taker = self._root.peers.by_name(to)
        peers = self._root.peers
        if taker.gone:
            # Known beforehand, so nothing is begun: the owner word stays as it is.
            hint = "take back what it had: `multiroot root release`" if taker.role is Role.CHILD else ""
            raise PeerLostError(f"the {to} root is gone", hint)

        async def lost() -> object:
            return await peers.wait(lambda: taker.gone or peers.get(taker.role) is not taker, None)

        channel = self._root.neighbours.channel(to)
        return await hand_over(self._manager, name, channel, taker.root, phases, lost)

    async def _hand_back(self, name: str) -> None:
        """Have the new root hand a VM to this one."""
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._root.neighbours.channel("new"))
        with translated("the new root's agent"):
            async for progress in stub.Handoff(coordinator_pb2.HandoffRequest(name=name, to="old")):
                if progress.WhichOneof("event") == "phase":
                    self._root.phases.publish(wire.from_proto(progress.phase))

    async def _announce(self, phases: list[Phase], verify: bool, devices: Sequence[str]) -> None:
        """Tell the new root that this one ends, and how far it has come."""
        request = coordinator_pb2.TakeOverRequest(
            phases=[wire.to_proto(phase) for phase in phases], verify=verify, devices=devices
        )
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._root.neighbours.channel("new"))
        with translated("the new root's agent"):
            await stub.TakeOver(request, timeout=ANNOUNCE_S)

    async def _parent_ended(self, timeout_s: float) -> bool:
        """True as soon as there is no parent, or it has ended."""
        peers = self._root.peers

        def ended() -> bool:
            parent = peers.get(Role.PARENT)
            return parent is None or parent.state is SideState.PARKED

        return await peers.wait(ended, timeout_s)

    def owned(self) -> list[str]:
        """VMs that this root owns by the arena's word."""
        return self._owned_by(self._root.me.root)

    def _handed_on(self) -> list[str]:
        """VMs that the child owns by the arena's word."""
        child = self._root.peers.get(Role.CHILD)
        return [] if child is None else self._owned_by(child.root)

    def _owned_by(self, root: int) -> list[str]:
        if isinstance(self._manager, MultirootError):
            return []
        return [e.name for e in self._manager.host.arena.entries() if e.owner.root == root]


def _open_arena(root: Root) -> Arena:
    """The arena; raises MultirootError when this machine has none or it is broken."""
    device = find_device().node
    if root.me.root == FIRST_ROOT:
        return open_or_format(device, root.me.root)
    return Arena(device, root.me.root)
