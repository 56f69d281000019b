# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's ties to the roots beside it: control pages, doorbells, keys, and gRPC both ways."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc.aio

from multiroot.device.handle import Device
from multiroot.device.uapi import Event, PeerIndex
from multiroot.errors import PeerLostError
from multiroot.net.addresses import CHILD_PORT, PARENT_PORT, agent_target
from multiroot.root.identity import Identity
from multiroot.root.peers import Peer, Peers, Role, SideState
from multiroot.rpc.border import ANSWER_MOST
from multiroot.rpc.keys import Keys
from multiroot.rpc.server import listen_again

log = logging.getLogger("multirootd")

_INDEX = {Role.PARENT: PeerIndex.PARENT, Role.CHILD: PeerIndex.CHILD}
_PORT = {Role.PARENT: CHILD_PORT, Role.CHILD: PARENT_PORT}  # on which we listen for it
_LAST_CALLS_S = 600.0  # a call may be what ends the root that has made it


class Neighbours:
    """At most one parent and one child. `keys` is the folder with the keys for each."""

    def __init__(self, device: Device, peers: Peers, me: Identity, keys: Path) -> None:
        self._device = device
        self._peers = peers
        self._me = me
        self._keys = keys
        self._doorbells: dict[Role, int] = {}
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._make_server: Callable[[], grpc.aio.Server] | None = None
        self._servers: dict[Role, grpc.aio.Server] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._ready_tsc = 0

    def attach_parent(self) -> None:
        """Watch the root that started this one, if there is one."""
        if self._device.info().has_parent:
            self._attach(Role.PARENT)

    async def attach_child(self, keys: Keys | None = None) -> Peer:
        """Watch the root in the registered carve, and answer it.

        It is about to be started with the other part of `keys`; without them an earlier agent has started it.
        """
        if keys:
            keys.write(self._folder(Role.CHILD))
        peer = self._attach(Role.CHILD)
        self._present(PeerIndex.CHILD)
        await self._answer(Role.CHILD)
        return peer

    async def serve(self, make: Callable[[], grpc.aio.Server]) -> None:
        """From now on answer the roots beside this one, each with a server of its own that `make` makes."""
        self._make_server = make
        for role in tuple(self._doorbells):
            await self._answer(role)

    async def detach_child(self) -> None:
        """Forget the child; its carve can be let go afterwards."""
        await self._detach(Role.CHILD)

    async def detach_parent(self) -> None:
        """Forget the parent, which has ended; the module can detach from it afterwards."""
        await self._detach(Role.PARENT)

    async def _detach(self, role: Role) -> None:
        peer = self._peers.get(role)
        if peer is None:
            return
        self._stop(role)
        channel = self._channels.pop(peer.root, None)
        if channel is not None:
            await channel.close()
        self._silence(role)
        self._peers.detach(role)
        self._device.close_control(_INDEX[role])
        shutil.rmtree(self._folder(role), ignore_errors=True)

    def channel(self, name: str) -> grpc.aio.Channel:
        """The one lasting connection to the root called `name`; raises PeerLostError if there is none."""
        peer = self._peers.by_name(name)
        if peer.root not in self._channels:
            keys = Keys.read(self._folder(peer.role))
            if keys is None:
                raise PeerLostError(f"this root has no keys for root {peer.root}, it was started by hand")
            # Reconnecting must be quick: a root that has just come up is waited for.
            options = (
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", ANSWER_MOST),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            )
            self._channels[peer.root] = keys.channel(peer.address, options)
        return self._channels[peer.root]

    def announce_ready(self, tsc: int) -> None:
        """Tell the parent that this root's agent answers."""
        self._ready_tsc = tsc
        if self._peers.get(Role.PARENT) is not None:
            self._present(PeerIndex.PARENT)
            self._device.ring(PeerIndex.PARENT, Event.STATE)

    async def close(self) -> None:
        """Let go of everything; the keys stay for the next agent."""
        for server in self._servers.values():
            await server.stop(grace=1)
        for task in self._stopping:
            task.cancel()
        for channel in self._channels.values():
            await channel.close()
        for role in tuple(self._doorbells):
            self._silence(role)

    def _folder(self, role: Role) -> Path:
        return self._keys / role

    async def _answer(self, role: Role) -> None:
        """Listen for the peer in that role, as soon as there is something to answer it with."""
        if self._make_server is None:
            return
        keys = Keys.read(self._folder(role))
        if keys is None:
            log.warning("not listening for the %s: there are no keys in %s", role, self._folder(role))
            return
        server = self._make_server()
        await listen_again(server, agent_target(self._me.root, _PORT[role]), keys.server())
        await server.start()
        self._servers[role] = server

    def _stop(self, role: Role) -> None:
        """Take no more calls of the peer in that role. Those that have come go on."""
        server = self._servers.pop(role, None)
        if server is not None:
            task = asyncio.create_task(server.stop(_LAST_CALLS_S))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def _present(self, index: PeerIndex) -> None:
        """Say in the control page who we are and that our agent answers."""
        mine = self._device.control(index).mine
        mine.boot_id = uuid.UUID(self._me.boot_id).bytes
        mine.ready_tsc = self._ready_tsc
        mine.state = SideState.READY

    def _attach(self, role: Role) -> Peer:
        index = _INDEX[role]
        peer = self._peers.attach(role, self._device.control(index))
        doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._doorbells[role] = doorbell
        asyncio.get_running_loop().add_reader(doorbell, self._rung, doorbell)
        self._device.doorbell(index, doorbell, Event.STATE | Event.USER)
        return peer

    def _rung(self, doorbell: int) -> None:
        # Another reader of the same ring may have emptied it already.
        with suppress(BlockingIOError):
            os.eventfd_read(doorbell)
        self._peers.notify()

    def _silence(self, role: Role) -> None:
        doorbell = self._doorbells.pop(role, None)
        if doorbell is None:
            return
        self._device.doorbell(_INDEX[role], -1, Event(0))
        asyncio.get_running_loop().remove_reader(doorbell)
        os.close(doorbell)
