# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans the steps that set up a root's networks. Pure: nothing is changed here.

Every root has two bridges. The control bridge is for the roots themselves: its ports are links to the roots
beside this one, and it has this root's address. The guests' bridge is in a network namespace of its own; its
ports are further links to the same roots, the taps of guests and, in the root that has it, their uplink: the
machine's card for them. So all guests are in one segment, wherever they run, and nothing connects it to the
roots' own. Roots stand in a chain: there is no loop, and no need for spanning tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multiroot.net.addresses import bridge_interface, control_interface

# Made by multiroot.ko: towards the parent, towards the child.
CONTROL_LINKS = ("mrctlup0", "mrctldown0")
GUEST_LINKS = ("mrup0", "mrdown0")
CONTROL_BRIDGE = "mrctl0"
GUEST_BRIDGE = "mrbr0"


@dataclass(frozen=True)
class Link:
    """A network device of one namespace. `master` is the index of the bridge that it is a port of, or 0."""

    index: int
    name: str
    master: int = 0
    up: bool = False
    addresses: tuple[str, ...] = ()
    mac: str = ""

    def is_called(self, name: str) -> bool:
        """Whether a person would mean it by that: its name, or its MAC address, which its bridge has, too."""
        ours = self.name in (CONTROL_BRIDGE, GUEST_BRIDGE)
        return bool(name) and not ours and name.lower() in (self.name, self.mac)


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


@dataclass(frozen=True)
class GiveToGuests:
    """Move a device to the guests' namespace."""

    name: str


Step = AddBridge | AddAddress | AddPort | BringUp | GiveToGuests


def plan_control(links: Iterable[Link], root: int, uplink: str = "") -> list[Step]:
    """The steps in the namespace of root number `root`, whose devices are `links`. `uplink` is the card, by
    name or MAC address, by which guests get out of the machine; while another root has it, it is not there.

    When all of them were taken, planning again gives no steps.
    """
    present = tuple(links)
    given = [
        GiveToGuests(link.name) for link in present if link.name in GUEST_LINKS or link.is_called(uplink)
    ]
    return [*given, *_plan_bridge(present, CONTROL_BRIDGE, CONTROL_LINKS, control_interface(root))]


def plan_guests(links: Iterable[Link], root: int, uplink: str = "") -> list[Step]:
    """The same in the namespace of the guests of root number `root`."""
    present = tuple(links)
    ways_out = tuple(link.name for link in present if link.is_called(uplink))
    return _plan_bridge(present, GUEST_BRIDGE, (*GUEST_LINKS, *ways_out), bridge_interface(root))


def has_way_out(links: Iterable[Link], uplink: str) -> bool:
    """Whether the card `uplink` is a port of the guests' bridge, and up."""
    present = tuple(links)
    bridges = {link.index for link in present if link.name == GUEST_BRIDGE}
    return any(link.up and link.master in bridges for link in present if link.is_called(uplink))


def _plan_bridge(links: tuple[Link, ...], name: str, ports: tuple[str, ...], address: str) -> list[Step]:
    present = {link.name: link for link in links}
    bridge = present.get(name)
    steps: list[Step] = []
    if bridge is None:
        steps.append(AddBridge(name))
    if bridge is None or address not in bridge.addresses:
        steps.append(AddAddress(name, address))
    for port in (present[each] for each in ports if each in present):
        if bridge is None or port.master != bridge.index:
            steps.append(AddPort(port.name, name))
        if not port.up:
            steps.append(BringUp(port.name))
    if bridge is None or not bridge.up:
        steps.append(BringUp(name))
    return steps
