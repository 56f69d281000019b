# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's ties to the roots beside it: control pages, doorbells, gRPC channels."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from contextlib import suppress

import grpc.aio

from multiroot.device.handle import Device
from multiroot.device.uapi import Event, PeerIndex
from multiroot.net.addresses import agent_target
from multiroot.root.identity import Identity
from multiroot.root.peers import Peer, Peers, Role, SideState

log = logging.getLogger("multirootd")

_INDEX = {Role.PARENT: PeerIndex.PARENT, Role.CHILD: PeerIndex.CHILD}


class Neighbours:
    """At most one parent and one child."""

    def __init__(self, device: Device, peers: Peers, me: Identity) -> None:
        self._device = device
        self._peers = peers
        self._me = me
        self._doorbells: dict[Role, int] = {}
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._ready_tsc = 0

    def attach_parent(self) -> None:
        """Watch the root that started this one, if there is one."""
        if self._device.info().has_parent:
            self._attach(Role.PARENT)

    def attach_child(self) -> Peer:
        """Watch the root in the registered carve: about to be started, or started by an earlier agent."""
        peer = self._attach(Role.CHILD)
        self._present(PeerIndex.CHILD)
        return peer

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
        channel = self._channels.pop(peer.root, None)
        if channel is not None:
            await channel.close()
        self._silence(role)
        self._peers.detach(role)
        self._device.close_control(_INDEX[role])

    def channel(self, name: str) -> grpc.aio.Channel:
        """The one lasting connection to the root called `name`; raises PeerLostError if there is none."""
        root = self._peers.by_name(name).root
        if root not in self._channels:
            # Reconnecting must be quick: a root that has just come up is waited for.
            options = (
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            )
            self._channels[root] = grpc.aio.insecure_channel(agent_target(root), options=options)
        return self._channels[root]

    def announce_ready(self, tsc: int) -> None:
        """Tell the parent that this root's agent answers."""
        self._ready_tsc = tsc
        if self._peers.get(Role.PARENT) is not None:
            self._present(PeerIndex.PARENT)
            self._device.ring(PeerIndex.PARENT, Event.STATE)

    async def close(self) -> None:
        """Let go of everything."""
        for channel in self._channels.values():
            await channel.close()
        for role in tuple(self._doorbells):
            self._silence(role)

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
