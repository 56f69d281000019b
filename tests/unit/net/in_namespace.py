# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives RootNetwork against a real kernel, in a network namespace of its own; exits with 77 if not let."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys

import pytest

from multiroot.errors import MultirootError
from multiroot.net.netlink import Netlink
from multiroot.net.network import RootNetwork
from multiroot.net.plan import BRIDGE, Link
from multiroot.net.tap import open_tap

NOT_PERMITTED = 77
CLONE_NEWNET = 0x40000000
RTM_NEWLINK_NAME = "mrup0"


async def links(netlink: Netlink) -> dict[str, Link]:
    return {link.name: link for link in await netlink.links()}


async def until_port(netlink: Netlink, name: str) -> None:
    while True:
        found = await links(netlink)
        if name in found and found[name].master == found[BRIDGE].index and found[name].up:
            return
        await asyncio.sleep(0.01)


async def main() -> None:
    network = RootNetwork(3)
    await network.start()
    netlink = Netlink()
    found = await links(netlink)
    assert found[BRIDGE].up
    assert found[BRIDGE].addresses == ("10.77.0.3/16",)
    await network.ensure()

    # A tap stands in for the module's link device; it comes, goes, and comes again.
    for _ in range(2):
        link = open_tap(RTM_NEWLINK_NAME)
        await asyncio.wait_for(until_port(netlink, RTM_NEWLINK_NAME), 20)
        os.close(link.fd)

    tap = await network.add_tap("vm0")
    found = await links(netlink)
    assert found[tap.name].master == found[BRIDGE].index
    assert not found[tap.name].up
    await network.bring_up(tap.name)
    assert (await links(netlink))[tap.name].up
    os.close(tap.fd)
    assert tap.name not in await links(netlink)
    with pytest.raises(MultirootError, match=tap.name):
        await network.bring_up(tap.name)
    await netlink.close()
    await network.close()

    again = RootNetwork(3)  # as a restarted agent
    await again.start()
    await again.close()


if __name__ == "__main__":
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(NOT_PERMITTED)
    try:
        os.close(open_tap().fd)
    except MultirootError:
        sys.exit(NOT_PERMITTED)
    asyncio.run(main())
