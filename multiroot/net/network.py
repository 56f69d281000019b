# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's network: sets up the bridge, and connects guests to it."""

from __future__ import annotations

import asyncio
import logging
import os

from multiroot.errors import MultirootError
from multiroot.net.netlink import Netlink
from multiroot.net.plan import BRIDGE, LINKS, AddPort, BringUp, plan_network
from multiroot.net.tap import TapDevice, open_tap
from multiroot.net.uevents import DeviceEvents

log = logging.getLogger(__name__)


class RootNetwork:
    """The bridge of root number `root`. Link devices become its ports when they appear, taps on request."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._netlink: Netlink | None = None
        self._watching: asyncio.Task[None] | None = None
        self._shaping = asyncio.Lock()

    async def start(self) -> None:
        """Make the bridge, give it its address, and from now on attach link devices when they appear."""
        self._netlink = Netlink()
        # First listen, then look: a device that appears in between is seen by one of them.
        events = DeviceEvents()
        await self.ensure()
        self._watching = asyncio.create_task(self._watch(events))

    async def close(self) -> None:
        """Stop watching for link devices. The bridge stays, because VMs outlive their agent."""
        if self._watching:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._netlink:
            await self._netlink.close()

    async def ensure(self) -> None:
        """Set up the bridge and the link devices as far as they are not set up yet."""
        netlink = self._open()
        # The watcher and a launch both come here when a link device appears; one netlink dump at a time.
        async with self._shaping:
            for step in plan_network(await netlink.links(), self._root):
                log.info("network: %s", step)
                await netlink.apply(step)

    async def add_tap(self, vm: str) -> TapDevice:
        """Make a tap for the VM and attach it to the bridge. The tap is down until `bring_up`."""
        tap = open_tap()
        try:
            await self._open().apply(AddPort(tap.name, BRIDGE))
        except BaseException:
            os.close(tap.fd)
            raise
        log.info("network: %s is %s's", tap.name, vm)
        return tap

    async def bring_up(self, tap: str) -> None:
        """Set the tap up, so that it passes frames."""
        await self._open().apply(BringUp(tap))

    async def _watch(self, events: DeviceEvents) -> None:
        try:
            async for name in events.appeared():
                if name is None or name in LINKS:
                    await self._attach(name or "what has appeared")
        finally:
            events.close()

    async def _attach(self, name: str) -> None:
        try:
            await self.ensure()
        except MultirootError as error:
            # It may be gone again already; its next appearance is a new event.
            log.warning("cannot attach %s: %s", name, error)

    def _open(self) -> Netlink:
        if self._netlink is None:
            raise MultirootError("the network has not been started")
        return self._netlink
