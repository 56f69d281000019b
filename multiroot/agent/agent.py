# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: it begins to answer with what says that its root is there, and learns all else after.

What this module imports, a root that is being started waits for. All else is imported by `parts`, which is
imported when the other root knows already that this one has come up.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc.aio

from multiroot import failpoints
from multiroot.agent.context import Options, Root
from multiroot.arena.atomics import tsc, tsc_clock
from multiroot.device.handle import Device
from multiroot.errors import MultirootError
from multiroot.failpoints import ORDERS, FailPoint, reach
from multiroot.launch.given import KEYS
from multiroot.net.network import RootNetwork
from multiroot.phases import Phases
from multiroot.root.identity import read_identity
from multiroot.root.marks import Marks
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers
from multiroot.root.root_service import RootParts, RootService
from multiroot.rpc.late import Gate, Services
from multiroot.rpc.server import listen, listen_locally, make_server
from multiroot.rpc.v1 import root_pb2_grpc
from multiroot.watch.signal import Signal

if TYPE_CHECKING:
    from multiroot.agent.parts import Parts

log = logging.getLogger("multirootd")

# An agent lives for months. Whoever asks for an update's phases asks soon. An update has some hundred, and
# eleven for each VM.
KEPT_PHASES = 1024
# What it answers before it has learned the rest: the first that a new root is asked (coordinator/steps.py).
AT_ONCE = "/multiroot.v1.RootService/SetClock"


class Agent:
    """One root's agent: `start`, then `learn`; `stop` ends it at any time."""

    def __init__(self, options: Options) -> None:
        self.root = make_root(options, Device())
        self._gate = Gate(AT_ONCE)
        self._services = Services()
        self._servers: list[grpc.aio.Server] = []
        self._network: RootNetwork | None = None
        self._parts: Parts | None = None
        self._beat: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer the roots beside this one; all calls but AT_ONCE wait for `learn`. Raises MultirootError."""
        root = self.root
        if root.options.failpoints:
            for order in failpoints.read_orders():
                ORDERS.arm(order)
        await reach(FailPoint.AGENT_START)
        root.neighbours.attach_parent()
        self._beat = asyncio.create_task(root.peers.run())
        # The network first: the link takes a moment to come up.
        self._network = RootNetwork(root.me.root, root.options.uplink, root.options.gateway)
        await self._network.start()
        parts = RootParts(root.me, root.clock, root.tsc_khz, root.marks, root.peers, self._vms)
        root_pb2_grpc.add_RootServiceServicer_to_server(RootService(parts), cast(Any, self._services))
        await root.neighbours.serve(self._make_server)
        root.neighbours.announce_ready(tsc())
        root.marks.add("ready")
        log.info("root %d (%s) is ready", root.me.root, root.me.kernel_release)

    async def learn(self) -> None:
        """Bring up everything else, and let calls of it pass. Raises MultirootError."""
        assert self._network is not None
        # In threads: the heart beats meanwhile.
        open_parts = await asyncio.to_thread(_import_parts)
        await asyncio.to_thread(_wait_for_drivers, self.root.options.drivers)
        self._parts = parts = await open_parts(self.root, self._network)
        parts.add_to(self._services)
        self._servers = _open_doors(self.root, self._make_server)
        for server in self._servers:
            await server.start()
        if self.root.options.metrics:
            parts.watching.serve_metrics(self.root.options.metrics)
        self.root.marks.add("complete")
        self._gate.open()
        log.info("root %d answers all calls", self.root.me.root)

    def refuse(self, error: MultirootError) -> None:
        """It has not learned what it should: tell that to all who call."""
        said = f"the agent of root {self.root.me.root} does not start: {error}"
        self._gate.fail(MultirootError(said, error.hint))

    async def stop(self) -> None:
        """Stop answering; VMs go on."""
        if self._beat:
            self._beat.cancel()
        if self._parts:
            await self._parts.close_first()
        for server in self._servers:
            await server.stop(grace=1)
        if self._parts:
            await self._parts.close()
        if self._network:
            await self._network.close()
        await self.root.neighbours.close()
        self.root.device.close()

    def _make_server(self, *first: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
        server = make_server(self._is_me, self.root.neighbours.channel, *first, gate=self._gate)
        server.add_generic_rpc_handlers([self._services])
        return server

    def _is_me(self, name: str) -> bool:
        return self.root.peers.is_me(name, self.root.me.root)

    def _vms(self) -> list[str]:
        """Names of the VMs that this root owns."""
        return self._parts.vms() if self._parts else []


def _import_parts() -> Callable[[Root, RootNetwork], Awaitable[Parts]]:
    from multiroot.agent.parts import Parts

    return Parts.open


def _wait_for_drivers(lock: Path | None) -> None:
    """Until nobody has locked the file any more: whoever loads drivers does so as long as it takes."""
    if lock is None:
        return
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def _open_doors(root: Root, make: Callable[..., grpc.aio.Server]) -> list[grpc.aio.Server]:
    """A server for this root's own callers, and one for those from outside who bring the token."""
    root.options.run_dir.chmod(0o700)
    own = make()
    listen_locally(own, root.options.socket)
    if not root.options.listen:
        return [own]
    from multiroot.rpc.token import TokenInterceptor, read_token

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
