# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts behind all services but the first one. Nobody imports this before the agent answers (`agent`)."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from multiroot.agent.context import Root
from multiroot.agent.failpoint_service import FailPointService
from multiroot.agent.guests import Guests
from multiroot.agent.handoffs import Handoffs
from multiroot.agent.updates import Updates
from multiroot.agent.watching import Watching
from multiroot.coordinator.journal import Journal
from multiroot.failpoints import FailPoint, reach
from multiroot.net.network import RootNetwork
from multiroot.root.memory_service import MemoryParts, MemoryService
from multiroot.rpc.v1 import (
    coordinator_pb2,
    failpoint_pb2,
    failpoint_pb2_grpc,
    handoff_pb2,
    memory_pb2,
    memory_pb2_grpc,
    root_pb2,
    storage_pb2,
    vm_pb2,
    watch_pb2,
)

MODULES = (  # whose services every agent offers
    coordinator_pb2,
    handoff_pb2,
    memory_pb2,
    root_pb2,
    storage_pb2,
    vm_pb2,
    watch_pb2,
)


class Parts:
    """VMs, handoffs, updates, and what is told of them."""

    def __init__(self, root: Root, guests: Guests, handoffs: Handoffs, updates: Updates) -> None:
        self._root = root
        self._guests = guests
        self._updates = updates
        self.watching = Watching(root, guests, updates, handoffs)

    @classmethod
    async def open(cls, root: Root, network: RootNetwork) -> Parts:
        """Adopt VMs, and go on with an update that was under way."""
        guests = await Guests.open(root, network)
        await reach(FailPoint.AGENT_ADOPTED)
        handoffs = Handoffs(root, guests)
        updates = Updates(root, network, guests, handoffs, Journal(changed=root.news.ring))
        await updates.recover()
        return cls(root, guests, handoffs, updates)

    def vms(self) -> list[str]:
        """Names of the VMs that this root owns."""
        return self._guests.owned_by(self._root.me.root)

    def add_to(self, services: Any) -> None:
        """Offer all but RootService, to a server or what stands for several (`rpc.late.Services`)."""
        offer(services, self._root, self._guests, self._updates)
        self.watching.add_to(services)

    async def close_first(self) -> None:
        """Before the servers stop: tell nobody any more, and begin nothing."""
        await self.watching.close()
        await self._updates.close()

    async def close(self) -> None:
        """When the servers have stopped; VMs go on."""
        await self._guests.close()


def offer(services: Any, root: Root, guests: Guests, updates: Updates) -> None:
    """Add services, and reflection, so that grpcurl and the like can list and call them."""
    guests.add_to(services)
    updates.add_to(services)
    memory = MemoryService(MemoryParts(root.device, root.peers, root.me.root))
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(memory, services)
    # Serving, for who asks for it has waited until it is.
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), services)
    modules: tuple[Any, ...] = MODULES
    if root.options.failpoints:
        failpoint_pb2_grpc.add_FailPointServiceServicer_to_server(FailPointService(), services)
        modules += (failpoint_pb2,)
    # enable_server_reflection() takes what is no server of grpc.aio for one without.
    servicer = reflection.aio.ReflectionServicer(service_names(modules))
    add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add_reflection(servicer, services)


def service_names(modules: tuple[Any, ...]) -> tuple[str, ...]:
    """Full names of the services that an agent offers."""
    ours = (
        service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()
    )
    return (*ours, health.SERVICE_NAME, reflection.SERVICE_NAME)
