# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: one gRPC server and the parts behind its services."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from multiroot import failpoints
from multiroot.agent.context import Options, Root
from multiroot.agent.failpoint_service import FailPointService
from multiroot.agent.guests import Guests
from multiroot.agent.handoffs import Handoffs
from multiroot.agent.updates import Updates
from multiroot.agent.watching import Watching
from multiroot.arena.atomics import tsc, tsc_clock
from multiroot.coordinator.journal import Journal
from multiroot.device.handle import Device
from multiroot.errors import MultirootError
from multiroot.failpoints import ORDERS, FailPoint, reach
from multiroot.launch.given import KEYS
from multiroot.net.network import RootNetwork
from multiroot.phases import Phases
from multiroot.root.identity import read_identity
from multiroot.root.marks import Marks
from multiroot.root.memory_service import MemoryParts, MemoryService
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers
from multiroot.root.root_service import RootParts, RootService
from multiroot.rpc.server import listen, listen_locally, make_server
from multiroot.rpc.token import TokenInterceptor, read_token
from multiroot.rpc.v1 import (
    coordinator_pb2,
    failpoint_pb2,
    failpoint_pb2_grpc,
    handoff_pb2,
    memory_pb2,
    memory_pb2_grpc,
    root_pb2,
    root_pb2_grpc,
    storage_pb2,
    vm_pb2,
    watch_pb2,
)
from multiroot.watch.signal import Signal

log = logging.getLogger("multirootd")

# An agent lives for months. Whoever asks for an update's phases asks soon. An update has some hundred, and
# eleven for each VM.
KEPT_PHASES = 1024

MODULES = (  # whose services every agent offers
    coordinator_pb2,
    handoff_pb2,
    memory_pb2,
    root_pb2,
    storage_pb2,
    vm_pb2,
    watch_pb2,
)


class Agent:
    """One root's agent, from `start` to `stop`."""

    def __init__(self, options: Options) -> None:
        self.root = make_root(options, Device())
        self._servers: list[grpc.aio.Server] = []
        self._network: RootNetwork | None = None
        self._guests: Guests | None = None
        self._watching: Watching | None = None
        self._updates: Updates | None = None
        self._beat: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bring everything up, answer, and tell the parent. Raises MultirootError."""
        root = self.root
        if root.options.failpoints:
            for order in failpoints.read_orders():
                ORDERS.arm(order)
        await reach(FailPoint.AGENT_START)
        root.neighbours.attach_parent()
        self._beat = asyncio.create_task(root.peers.run())
        # The network first: the link takes a moment to come up.
        self._network = network = RootNetwork(root.me.root, root.options.uplink, root.options.gateway)
        await network.start()
        self._guests = guests = await Guests.open(root, network)
        await reach(FailPoint.AGENT_ADOPTED)
        handoffs = Handoffs(root, guests)
        self._updates = updates = Updates(root, network, guests, handoffs, Journal(changed=root.news.ring))
        await updates.recover()
        self._watching = watching = Watching(root, guests, updates, handoffs)
        health_service = health.aio.HealthServicer()

        def make(*first: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
            server = make_server(self._is_me, root.neighbours.channel, *first)
            offer(server, root, guests, updates, health_service)
            watching.add_to(server)
            return server

        self._servers = _open_doors(root, make)
        for server in self._servers:
            await server.start()
        await root.neighbours.serve(make)
        if root.options.metrics:
            watching.serve_metrics(root.options.metrics)
        await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
        root.neighbours.announce_ready(tsc())
        root.marks.add("ready")
        log.info("root %d (%s) is ready", root.me.root, root.me.kernel_release)

    async def stop(self) -> None:
        """Stop answering; VMs go on."""
        if self._beat:
            self._beat.cancel()
        if self._watching:
            await self._watching.close()
        if self._updates:
            await self._updates.close()
        for server in self._servers:
            await server.stop(grace=1)
        if self._guests:
            await self._guests.close()
        if self._network:
            await self._network.close()
        await self.root.neighbours.close()
        self.root.device.close()

    def _is_me(self, name: str) -> bool:
        return self.root.peers.is_me(name, self.root.me.root)


def _open_doors(root: Root, make: Callable[..., grpc.aio.Server]) -> list[grpc.aio.Server]:
    """A server for this root's own callers, and one for those from outside who bring the token."""
    root.options.run_dir.chmod(0o700)
    own = make()
    listen_locally(own, root.options.socket)
    if not root.options.listen:
        return [own]
    try:
        others = make(TokenInterceptor(read_token(root.options.token)))
    except MultirootError as error:
        log.warning("not listening on %s: %s", ", ".join(root.options.listen), error)
        return [own]
    for address in root.options.listen:
        listen(others, address)
    return [own, others]


def make_root(options: Options, device: Device) -> Root:
    """What the agent's parts know of this root. Marks the moment as the agent's start."""
    me = read_identity()
    info = device.info()
    clock = tsc_clock(info.tsc_khz)
    marks = Marks(clock, options.run_dir / "marks")
    marks.add("agent")
    news = Signal()
    peers = Peers(tsc, clock, news.ring)
    return Root(
        me=me,
        device=device,
        clock=clock,
        tsc_khz=info.tsc_khz,
        marks=marks,
        peers=peers,
        neighbours=Neighbours(device, peers, me, options.run_dir / KEYS),
        phases=Phases(f"root {me.root}", clock, keep=KEPT_PHASES),
        options=options,
        news=news,
    )


def offer(
    server: grpc.aio.Server,
    root: Root,
    guests: Guests,
    updates: Updates,
    health_service: health.aio.HealthServicer,
) -> None:
    """Add all services to `server`, and reflection, so that grpcurl and the like can list and call them."""
    guests.add_to(server)
    updates.add_to(server)
    parts = RootParts(
        root.me, root.clock, root.tsc_khz, root.marks, root.peers, lambda: guests.owned_by(root.me.root)
    )
    root_pb2_grpc.add_RootServiceServicer_to_server(RootService(parts), server)
    memory = MemoryService(MemoryParts(root.device, root.peers, root.me.root))
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(memory, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    modules: tuple[Any, ...] = MODULES
    if root.options.failpoints:
        failpoint_pb2_grpc.add_FailPointServiceServicer_to_server(FailPointService(), server)
        modules += (failpoint_pb2,)
    reflection.enable_server_reflection(service_names(modules), server)


def service_names(modules: tuple[Any, ...]) -> tuple[str, ...]:
    """Full names of the services that an agent offers."""
    ours = (
        service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()
    )
    return (*ours, health.SERVICE_NAME, reflection.SERVICE_NAME)
