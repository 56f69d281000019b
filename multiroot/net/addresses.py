# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of both networks, written down once. Pure.

On the roots' own network root N has 10.77.0.N. Guests have 10.77.1.0 and above on theirs, where the bridge of
root N has 10.77.2.N, so that a person in a root can look at guests. In the lab the guests' network goes on
outside of the machine. There the workstation has 10.77.3.2. It gives guests that ask for one (DHCP) an
address from 10.77.4.1 on.
"""

from __future__ import annotations

import ipaddress

from multiroot.errors import BadRequestError

PREFIX_LENGTH = 16  # of the guests' network
CONTROL_PREFIX_LENGTH = 24
GUESTS = ipaddress.IPv4Network(f"10.77.0.0/{PREFIX_LENGTH}")
ROOTS = ipaddress.IPv4Network(f"10.77.0.0/{CONTROL_PREFIX_LENGTH}")
BRIDGES = ipaddress.IPv4Network(f"10.77.2.0/{CONTROL_PREFIX_LENGTH}")
OUTSIDE, OUTSIDE_NAMES, FIRST_LEASE = "10.77.3.2", "10.77.3.3", "10.77.4.1"
MAX_ROOT = 254
MAX_GUEST = 250
CHILD_PORT = 7700  # where a root's agent listens for its parent
PARENT_PORT = 7702  # where it listens for its child


def root_address(root: int) -> str:
    """The address of root number `root`; raises BadRequestError for a number that has none."""
    if not 1 <= root <= MAX_ROOT:
        raise BadRequestError(f"root {root} has no address", f"roots 1 to {MAX_ROOT} have")
    return f"10.77.0.{root}"


def agent_target(root: int, port: int) -> str:
    """The gRPC target on which the agent of root number `root` listens for a root beside it."""
    return f"{root_address(root)}:{port}"


def guest_address(number: int) -> str:
    """The address of guest `number`, from 1; raises BadRequestError for a number that has none."""
    if not 1 <= number <= MAX_GUEST:
        raise BadRequestError(f"guest {number} has no address", f"guests 1 to {MAX_GUEST} have")
    return f"10.77.1.{number}"


def not_a_guests(address: ipaddress.IPv4Interface) -> str:
    """Why no guest can have an address, in words; "" if one can. Whoever had it twice would be deaf."""
    network, ip = address.network, address.ip
    if ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_reserved:
        return "is no address of a station"
    if network.num_addresses > 2 and ip in (network.network_address, network.broadcast_address):
        return f"means all of the network {network}"
    if ip in ROOTS:
        return "is on the roots' own network"
    if ip in BRIDGES:
        return "is that of a root's bridge"
    return "is the workstation's" if str(ip) in (OUTSIDE, OUTSIDE_NAMES) else ""


def control_interface(root: int) -> str:
    """The address of root number `root` on the roots' own network, as an interface is given it."""
    return f"{root_address(root)}/{CONTROL_PREFIX_LENGTH}"


def bridge_interface(root: int) -> str:
    """The address of the guests' bridge of root number `root`, as an interface is given it."""
    return f"{root_address(root).replace('.0.', '.2.', 1)}/{PREFIX_LENGTH}"


def interface(address: str) -> str:
    """A guest's `address` with the prefix length of its network, as an interface is given it."""
    return f"{address}/{PREFIX_LENGTH}"
