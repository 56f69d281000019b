# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans the steps that set up a root's network. Pure: nothing is changed here.

Every root has one bridge. Its ports are the link devices to neighbouring roots and the taps of its guests, so
that all roots and guests are in one segment and one subnet, wherever a guest happens to run. Roots stand in a
chain, hence there is no loop and no need for spanning tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multiroot.net.addresses import interface, root_address

BRIDGE = "mrbr0"
LINKS = ("mrup0", "mrdown0")  # towards the parent, towards the child; made by multiroot.ko


@dataclass(frozen=True)
class Link:
    """A network device of this root. `master` is the index of the bridge that it is a port of, or 0."""

    index: int
    name: str
    master: int = 0
    up: bool = False
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class AddBridge:
    """Make the bridge."""

    name: str


@dataclass(frozen=True)
class AddAddress:
    """Give a device an IPv4 address, as ADDRESS/LENGTH."""

    name: str
    address: str


@dataclass(frozen=True)
class AddPort:
    """Make a device a port of the bridge."""

    name: str
    bridge: str


@dataclass(frozen=True)
class BringUp:
    """Set a device up."""

    name: str


Step = AddBridge | AddAddress | AddPort | BringUp


def plan_network(links: Iterable[Link], root: int) -> list[Step]:
    """The steps that set up the bridge of root number `root` and the link devices among `links`.

    When all of them were taken, planning again gives no steps.
    """
    present = {link.name: link for link in links}
    bridge = present.get(BRIDGE)
    steps: list[Step] = []
    if bridge is None:
        steps.append(AddBridge(BRIDGE))
    address = interface(root_address(root))
    if bridge is None or address not in bridge.addresses:
        steps.append(AddAddress(BRIDGE, address))
    for name in LINKS:
        if name in present:
            steps += plan_port(present[name], bridge)
            if not present[name].up:
                steps.append(BringUp(name))
    if bridge is None or not bridge.up:
        steps.append(BringUp(BRIDGE))
    return steps


def plan_port(link: Link, bridge: Link | None) -> list[Step]:
    """The step that makes `link` a port of the bridge, if it is none. `bridge` is None until it is made."""
    if bridge is not None and link.master == bridge.index:
        return []
    return [AddPort(link.name, BRIDGE)]
