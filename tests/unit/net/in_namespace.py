# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives RootNetwork against a real kernel, in namespaces of its own; exits with 77 if not let."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import select
import socket
import subprocess
import sys
from typing import Any

import pytest

from multiroot.errors import CommandError, MultirootError
from multiroot.net import namespace
from multiroot.net.netlink import Netlink
from multiroot.net.network import RootNetwork
from multiroot.net.plan import CONTROL_BRIDGE, GUEST_BRIDGE, Link
from multiroot.net.tap import TapDevice, open_tap

NOT_PERMITTED = 77
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
PORT = 7700


async def links(netlink: Netlink) -> dict[str, Link]:
    return {link.name: link for link in await netlink.links()}


async def until_port(netlink: Netlink, name: str, bridge: str) -> None:
    while True:
        found = await links(netlink)
        if name in found and found[name].master == found[bridge].index and found[name].up:
            return
        await asyncio.sleep(0.01)


async def main() -> None:
    network = RootNetwork(3, "eth7")
    await network.start()
    control, guests = Netlink(), Netlink(inside=namespace.PATH)
    found, theirs = await links(control), await links(guests)
    assert found[CONTROL_BRIDGE].up
    assert found[CONTROL_BRIDGE].addresses == ("10.77.0.3/24",)
    assert GUEST_BRIDGE not in found
    assert theirs[GUEST_BRIDGE].up
    assert theirs[GUEST_BRIDGE].addresses == ("10.77.2.3/16",)
    assert CONTROL_BRIDGE not in theirs
    await network.ensure()
    waiting = asyncio.create_task(network.way_out())

    # Taps stand in for the module's links; they come, go, and come again.
    for name, netlink, bridge in (
        ("mrctlup0", control, CONTROL_BRIDGE),
        ("mrup0", guests, GUEST_BRIDGE),
        ("mrup0", guests, GUEST_BRIDGE),
    ):
        link = open_tap(name)
        await asyncio.wait_for(until_port(netlink, name, bridge), 20)
        os.close(link.fd)

    tap = await network.add_tap("vm0")
    theirs = await links(guests)
    assert theirs[tap.name].master == theirs[GUEST_BRIDGE].index
    assert not theirs[tap.name].up
    assert tap.name not in await links(control)
    await network.bring_up(tap.name)
    assert (await links(guests))[tap.name].up
    nothing_of_the_root_is_reached_from_the_guests()
    os.close(tap.fd)
    assert tap.name not in await links(guests)
    with pytest.raises(MultirootError, match=tap.name):
        await network.bring_up(tap.name)
    assert not waiting.done(), "the uplink's card has not come yet"
    await frames_that_come_too_late_are_passed_on(network, guests)
    assert await waiting
    await nothing_is_kept_of_requests(control)
    await a_handoff_leaves_no_cycles(network)
    await network.close()

    again = RootNetwork(3)  # as a restarted agent
    await again.start()
    assert not await again.way_out(), "it has no uplink at all"
    await again.close()


GUEST, OUTSIDE = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
EVERYONE, NO_HEADER = b"\xff" * 6, bytes(10)  # struct virtio_net_hdr
OURS = b"\x88\xb5"  # a protocol that is nobody's
# IP (20 bytes), UDP (8) from port 67 to 68, DHCP's acknowledgement of 10.77.4.1.
LEASE = (
    bytes.fromhex("0800 4500 0114 0000 0000 4011 5e3d 0a4d0302 0a4d0401 0043 0044 0100 0000 02010600")
    + bytes(12) + bytes([10, 77, 4, 1]) + bytes(8) + GUEST + bytes(202) + bytes.fromhex("63825363 350105 ff")
    + bytes(4)
)  # fmt: skip
ARP_QUESTION = bytes.fromhex("0806 0001 0800 06 04 0001") + GUEST + bytes([10, 77, 1, 9]) + bytes(10)


async def frames_that_come_too_late_are_passed_on(network: RootNetwork, guests: Netlink) -> None:
    """A card that is known by its address becomes a port; who asks is heard; what comes for one guest goes on
    by the link, under the bridge's address, and what came before or for everyone does not.
    """
    uplink, link, tap = open_tap("eth7"), open_tap("mrdown0"), await network.add_tap("vm0")
    heard: list[tuple[str, str]] = []
    try:
        for name in ("eth7", "mrdown0"):
            await asyncio.wait_for(until_port(guests, name, GUEST_BRIDGE), 20)
        assert await asyncio.wait_for(network.way_out(), 20)
        await network.bring_up(tap.name)
        network.tell_stations(lambda *sender: heard.append(sender))
        os.write(tap.fd, NO_HEADER + EVERYONE + GUEST + ARP_QUESTION)
        async with asyncio.timeout(20):
            while not heard:
                await asyncio.sleep(0.01)
        assert heard[0] == (GUEST.hex(":"), "10.77.1.9")
        network.await_lease(tap.name, lambda *sender: heard.append(sender))
        os.write(uplink.fd, NO_HEADER + GUEST + OUTSIDE + LEASE)
        async with asyncio.timeout(20):
            while (GUEST.hex(":"), "10.77.4.1") not in heard:
                await asyncio.sleep(0.01)
        a_bridge_sends_nothing_back_by_the_link(network, link, tap)
        late = network.late_frames({tap.name: GUEST.hex(":")}, root=4, vmm=os.getpid())
        os.write(uplink.fd, some_frame(GUEST, 0))
        late.listen()
        for number, to in ((1, GUEST), (2, EVERYONE), (3, GUEST), (4, GUEST)):
            os.write(uplink.fd, some_frame(to, number))
        taken = [next_frame(tap.fd, b"")[14] for _ in range(4)]
        assert taken == [0, 1, 2, 3], "by the VMM: in time, or too late for its guest"
        assert select.select([tap.fd], [], [], 20)[0], "the last one has come"
        tap.close()  # the VMM has ended, and what is left there is left all the same
        assert late.pass_on() == 3, "the last two that were taken, and what is left"
        assert late.pass_on() == 0
        os.write(uplink.fd, some_frame(GUEST, 5))
        passed = [next_frame(link.fd, GUEST) for _ in range(4)]
        assert [frame[14] for frame in passed] == [1, 3, 4, 5]
        assert late.pass_on() == 0, "the bridge knows the way by now"
        late.close()
        assert not {frame[6:12] for frame in passed[:-1]} & {GUEST, OUTSIDE}
    finally:
        for each in (uplink, link):
            each.close()


def some_frame(to: bytes, number: int, sender: bytes = OUTSIDE) -> bytes:
    return NO_HEADER + to + sender + OURS + bytes([number]) * 50


def a_bridge_sends_nothing_back_by_the_link(network: RootNetwork, link: TapDevice, tap: TapDevice) -> None:
    """So what a giver passes on is lost as long as the taker's bridge knows the guest behind the link."""
    os.write(link.fd, some_frame(EVERYONE, 0, GUEST))
    next_frame(tap.fd, EVERYONE)
    os.write(link.fd, some_frame(GUEST, 1))
    arrival = network.arriving({tap.name: GUEST.hex(":")})
    arrival.tell()
    arrival.close()
    os.write(link.fd, some_frame(GUEST, 2))
    assert next_frame(tap.fd, GUEST)[14] == 2, "and not the one before"
    with pytest.raises(MultirootError, match="mrtap99"):
        network.arriving({"mrtap99": GUEST.hex(":")})


def next_frame(fd: int, to: bytes) -> bytes:
    """The next of `some_frame` for a station, or for any, once it has come: a busy kernel passes frames on
    when it has the time.
    """
    while True:
        assert select.select([fd], [], [], 20)[0], "no frame has come"
        frame = os.read(fd, 1 << 16)[len(NO_HEADER) :]
        if frame.startswith(to) and frame[12:14] == OURS:
            return frame


async def nothing_is_kept_of_requests(netlink: Netlink) -> None:
    """pyroute2's queues would, and an agent lives for months."""
    for _ in range(20):
        await netlink.links()
    gc.collect()
    queues: list[Any] = [each for each in gc.get_objects() if type(each).__name__ == "CoreMessageQueue"]
    kept = sum(each.root.qsize() for each in queues)
    assert kept < 10, kept


async def a_handoff_leaves_no_cycles(network: RootNetwork) -> None:
    """They stay until Python looks for them, and make an agent larger meanwhile."""
    gc.collect()
    gc.disable()
    for _ in range(20):
        tap = await network.add_tap("vm0")
        await network.bring_up(tap.name)
        os.close(tap.fd)
    found = gc.collect()
    gc.enable()
    assert found < 20, found


def nothing_of_the_root_is_reached_from_the_guests() -> None:
    """Whatever address of the root is asked for, although something listens on all of them."""
    with socket.create_server(("0.0.0.0", PORT)), namespace.entered():
        for address in ("10.77.0.3", "10.77.2.3", "127.0.0.1"):
            with socket.socket() as sock:
                sock.settimeout(2)
                assert sock.connect_ex((address, PORT)), address


def set_up() -> None:
    """Own namespaces for network and mounts: namespaces by name are mounts in /run."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | CLONE_NEWNS):
        sys.exit(NOT_PERMITTED)
    for words in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "tmpfs", "/run"],
        ["ip", "netns", "add", "probe"],
    ):
        if subprocess.run(words, check=False, capture_output=True).returncode:
            sys.exit(NOT_PERMITTED)
    try:
        os.close(open_tap().fd)
    except (CommandError, MultirootError):
        sys.exit(NOT_PERMITTED)


if __name__ == "__main__":
    set_up()
    asyncio.run(main())
