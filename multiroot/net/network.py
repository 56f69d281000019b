# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's networks: sets up both bridges, and connects guests to theirs."""

from __future__ import annotations

import asyncio
import logging
import os

from multiroot.errors import MultirootError
from multiroot.net import namespace
from multiroot.net.netlink import Netlink
from multiroot.net.plan import (
    CONTROL_LINKS,
    GUEST_BRIDGE,
    GUEST_LINKS,
    AddPort,
    BringUp,
    plan_control,
    plan_guests,
)
from multiroot.net.tap import TapDevice, open_tap
from multiroot.net.uevents import DeviceEvents

log = logging.getLogger(__name__)


class RootNetwork:
    """The networks of root number `root`. Links become ports when they appear, taps on request."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._control: Netlink | None = None
        self._guests: Netlink | None = None
        self._watching: asyncio.Task[None] | None = None
        self._shaping = asyncio.Lock()

    async def start(self) -> None:
        """Make namespace and bridges, and from now on attach links when they appear."""
        await asyncio.to_thread(namespace.make)
        self._control = Netlink()
        self._guests = Netlink(inside=namespace.PATH)
        # First listen, then look: a device that appears in between is seen by one of them.
        events = DeviceEvents()
        await self.ensure()
        self._watching = asyncio.create_task(self._watch(events))

    async def close(self) -> None:
        """Stop watching for links. The bridges stay, because VMs outlive their agent."""
        if self._watching:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def ensure(self) -> None:
        """Set up bridges and links as far as they are not set up yet."""
        # The watcher and a launch both come here when a link appears; one netlink dump at a time.
        async with self._shaping:
            # What the first gives away the second finds.
            for netlink, plan in ((self._control, plan_control), (self._guests, plan_guests)):
                opened = _started(netlink)
                for step in plan(await opened.links(), self._root):
                    log.info("network: %s", step)
                    await opened.apply(step)

    async def add_tap(self, vm: str) -> TapDevice:
        """Make a tap for the VM and attach it to the guests' bridge. The tap is down until `bring_up`."""
        with namespace.entered():
            tap = open_tap()
        try:
            await _started(self._guests).apply(AddPort(tap.name, GUEST_BRIDGE))
        except BaseException:
            os.close(tap.fd)
            raise
        log.info("network: %s is %s's", tap.name, vm)
        return tap

    async def bring_up(self, tap: str) -> None:
        """Set the tap up, so that it passes frames."""
        await _started(self._guests).apply(BringUp(tap))

    async def _watch(self, events: DeviceEvents) -> None:
        try:
            async for name in events.appeared():
                if name is None or name in (*CONTROL_LINKS, *GUEST_LINKS):
                    await self._attach(name or "what has appeared")
        finally:
            events.close()

    async def _attach(self, name: str) -> None:
        try:
            await self.ensure()
        except MultirootError as error:
            # It may be gone again already; its next appearance is a new event.
            log.warning("cannot attach %s: %s", name, error)


def _started(netlink: Netlink | None) -> Netlink:
    if netlink is None:
        raise MultirootError("the network has not been started")
    return netlink
