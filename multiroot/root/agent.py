# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: one gRPC server and the parts behind its services."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from multiroot.arena.atomics import tsc, tsc_clock
from multiroot.coordinator.update import SERVICES
from multiroot.device.handle import Device
from multiroot.errors import MultirootError
from multiroot.phases import Phases
from multiroot.root.identity import Identity, read_identity
from multiroot.root.machinery import Machinery
from multiroot.root.marks import Marks
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers
from multiroot.root.service import RootService
from multiroot.rpc.client import AGENT_SOCKET, link_target
from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import root_pb2_grpc

log = logging.getLogger("multirootd")


@dataclass(frozen=True)
class Options:
    """Where the agent listens and finds its files."""

    socket: Path = AGENT_SOCKET
    listen: tuple[str, ...] = ()
    kernels: Path = Path("/usr/lib/multiroot/kernels")
    guests: Path = Path("/usr/lib/multiroot/guests")
    run_dir: Path = Path("/run/multiroot")
    services: Path = SERVICES


@dataclass(frozen=True)
class Root:
    """What every part of the agent knows about the root it runs in."""

    me: Identity
    device: Device
    clock: Callable[[], int]
    tsc_khz: int
    marks: Marks
    peers: Peers
    neighbours: Neighbours
    phases: Phases
    options: Options


class Agent:
    """One root's agent, from `start` to `stop`."""

    def __init__(self, options: Options) -> None:
        me = read_identity()
        device = Device()
        info = device.info()
        clock = tsc_clock(info.tsc_khz)
        marks = Marks(clock, options.run_dir / "marks")
        marks.add("agent")
        peers = Peers(tsc, clock)
        neighbours = Neighbours(device, peers, me)
        phases = Phases(f"root {me.root}", clock)
        self.root = Root(me, device, clock, info.tsc_khz, marks, peers, neighbours, phases, options)
        self._server = make_server(
            lambda name: peers.is_me(name, me.root), lambda name: neighbours.channel(name)
        )
        self._machinery: Machinery | None = None
        self._beat: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bring everything up, answer, and tell the parent. Raises MultirootError."""
        root = self.root
        root.neighbours.attach_parent()
        self._beat = asyncio.create_task(root.peers.run())
        self._machinery = await Machinery.bring_up(root)
        self._machinery.add_to(self._server)
        service = RootService(
            root.me, root.clock, root.tsc_khz, root.marks, root.peers, self._machinery.owned
        )
        root_pb2_grpc.add_RootServiceServicer_to_server(service, self._server)
        health_service = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_service, self._server)
        self._listen()
        await self._server.start()
        await health_service.set("", health_pb2.HealthCheckResponse.SERVING)
        root.neighbours.announce_ready(tsc())
        root.marks.add("ready")
        log.info("root %d (%s) is ready", root.me.root, root.me.kernel_release)

    async def stop(self) -> None:
        """Stop answering; VMs go on."""
        if self._beat:
            self._beat.cancel()
        await self._server.stop(grace=1)
        if self._machinery:
            await self._machinery.close()
        await self.root.neighbours.close()
        self.root.device.close()

    def _listen(self) -> None:
        root = self.root
        path = root.options.socket
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        for address in (f"unix:{path}", link_target(root.me.root), *root.options.listen):
            try:
                self._server.add_insecure_port(address)
            except RuntimeError as error:
                raise MultirootError(f"cannot listen on {address}: {error}") from error
        path.chmod(0o600)
