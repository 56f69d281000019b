# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's networks: sets up both bridges, and connects guests to theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any

from multiroot.errors import MultirootError
from multiroot.net import namespace
from multiroot.net.forwarding import Moving
from multiroot.net.late_frames import LateFrames
from multiroot.net.netlink import Netlink
from multiroot.net.plan import (
    CONTROL_LINKS,
    GUEST_BRIDGE,
    GUEST_LINKS,
    AddPort,
    BringUp,
    has_way_out,
    plan_control,
    plan_guests,
)
from multiroot.net.stations import ARP, DHCP, Stations
from multiroot.net.tap import TapDevice, open_tap
from multiroot.net.uevents import DeviceEvents

log = logging.getLogger(__name__)


class RootNetwork:
    """The networks of root number `root`. Links become ports when they appear, taps on request; so does the
    card `uplink`, by name or MAC address, if there is one. What VMMs reach outside of the guests' network,
    such as servers of disks, they reach by `gateway`, an IPv4 address there.
    """

    def __init__(self, root: int, uplink: str = "", gateway: str = "") -> None:
        self._root = root
        self._uplink = uplink
        self._gateway = gateway
        self._control: Netlink | None = None
        self._guests: Netlink | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._shaping = asyncio.Lock()
        self._way_out = asyncio.Event()

    async def start(self) -> None:
        """Make namespace and bridges, and from now on attach links when they appear."""
        await asyncio.to_thread(namespace.make)
        self._control = Netlink()
        self._guests = Netlink(inside=namespace.PATH)
        # First listen, then look: a device that appears in between is seen by one of them.
        events = DeviceEvents()
        await self.ensure()
        if self._gateway:
            await asyncio.to_thread(namespace.route_by, self._gateway)
        self._keep(self._watch(events))

    async def close(self) -> None:
        """Stop watching for links. The bridges stay, because VMs outlive their agent."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def tell_stations(self, hear: Callable[[str, str], None]) -> None:
        """From now on, tell MAC and IPv4 address of every station of the guests' network that seeks another.

        Raises MultirootError if this user may not listen.
        """
        self._keep(_tell(Stations(ARP), hear))

    def await_lease(self, tap: str, hear: Callable[[str, str], None]) -> None:
        """Once, tell MAC and IPv4 address when a server gives one to the guest behind `tap`.

        Raises MultirootError if this user may not listen, or there is no such tap.
        """
        self._keep(_tell_first(Stations(DHCP, tap), hear))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ensure(self) -> None:
        """Set up bridges and links as far as they are not set up yet."""
        # The watcher and a launch both come here when a link appears; one netlink dump at a time.
        async with self._shaping:
            # What the first gives away the second finds.
            for netlink, plan in ((self._control, plan_control), (self._guests, plan_guests)):
                opened = _started(netlink)
                for step in plan(await opened.links(), self._root, self._uplink):
                    log.info("network: %s", step)
                    await opened.apply(step)
            if has_way_out(await _started(self._guests).links(), self._uplink):
                self._way_out.set()
            else:
                self._way_out.clear()

    async def way_out(self) -> bool:
        """Wait until this root's guests get out by the uplink; False at once if there is none."""
        if self._uplink:
            await self._way_out.wait()
        return bool(self._uplink)

    async def add_tap(self, vm: str, queues: int = 1) -> TapDevice:
        """Make a tap for the VM and attach it to the guests' bridge. The tap is down until `bring_up`."""
        with namespace.entered():
            tap = open_tap(queues=queues)
        try:
            await _started(self._guests).apply(AddPort(tap.name, GUEST_BRIDGE))
        except BaseException:
            tap.close()
            raise
        log.info("network: %s is %s's", tap.name, vm)
        return tap

    async def bring_up(self, tap: str) -> None:
        """Set the tap up, so that it passes frames."""
        await _started(self._guests).apply(BringUp(tap))

    def inside(self) -> AbstractContextManager[None]:
        """In the body, this thread is in the guests' network. Do not wait for anything there."""
        return namespace.entered()

    def arriving(self, cards: Mapping[str, str]) -> Moving:
        """To let the bridge know that cards, MAC addresses by tap, are here, before anything has come from
        them. Raises MultirootError if a tap is gone.
        """
        try:
            return Moving({mac: tap for tap, mac in cards.items()})
        except OSError as error:
            raise MultirootError(f"network: {', '.join(cards)}: {error.strerror}") from error

    def late_frames(self, cards: Mapping[str, str], root: int, vmm: int) -> LateFrames:
        """What comes for cards, MAC addresses by tap, of process `vmm` while their guest goes to root `root`,
        which is beside this one.
        """
        return LateFrames(cards, GUEST_LINKS[root > self._root], vmm)

    async def _watch(self, events: DeviceEvents) -> None:
        try:
            async for name in events.appeared():
                # A card may be known by its address alone; taps do not appear in this namespace.
                if self._uplink or name is None or name in (*CONTROL_LINKS, *GUEST_LINKS):
                    await self._attach(name or "what has appeared")
        finally:
            events.close()

    async def _attach(self, name: str) -> None:
        try:
            await self.ensure()
        except MultirootError as error:
            # It may be gone again already; its next appearance is a new event.
            log.warning("cannot attach %s: %s", name, error)


async def _tell_first(stations: Stations, hear: Callable[[str, str], None]) -> None:
    try:
        async for mac, address in stations.heard():
            hear(mac, address)
            return
    except MultirootError:
        return  # The tap is gone, and its guest with it.
    finally:
        stations.close()


async def _tell(stations: Stations, hear: Callable[[str, str], None]) -> None:
    try:
        async for mac, address in stations.heard():
            hear(mac, address)
    finally:
        stations.close()


def _started(netlink: Netlink | None) -> Netlink:
    if netlink is None:
        raise MultirootError("the network has not been started")
    return netlink
