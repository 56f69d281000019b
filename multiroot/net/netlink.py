# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root's network asks of the kernel: by ioctl for each handoff, else by rtnetlink."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from multiroot.errors import MultirootError
from multiroot.net import namespace, ports, rtnetlink
from multiroot.net.plan import AddAddress, AddBridge, AddPort, BringUp, GiveToGuests, Link, Step


class Netlink:
    """Requests in this network namespace, or in the one at `inside`."""

    def __init__(self, inside: Path | None = None) -> None:
        self._inside = inside

    @contextmanager
    def _opened(self, doing: str) -> Iterator[socket.socket]:
        """An open socket; raises MultirootError with the kernel's reason for what it refuses in the body."""
        with self._socket(socket.AF_NETLINK, socket.NETLINK_ROUTE) as sock:
            try:
                yield sock
            except OSError as error:
                raise MultirootError(f"network: {doing}: {error.strerror}") from error

    def _socket(self, family: int, protocol: int = 0) -> socket.socket:
        # A socket stays in the namespace that it was made in.
        with namespace.entered(self._inside) if self._inside else nullcontext():
            return socket.socket(family, socket.SOCK_DGRAM, protocol)

    def links(self) -> list[Link]:
        """All network devices with their IPv4 addresses."""
        with self._opened("list network devices") as sock:
            addresses: dict[int, list[str]] = {}
            for index, address in rtnetlink.addresses(sock):
                addresses.setdefault(index, []).append(address)
            return [
                Link(
                    index=device.index,
                    name=device.name,
                    master=device.master,
                    up=bool(device.flags & ports.IFF_UP),
                    addresses=tuple(addresses.get(device.index, ())),
                    mac=device.mac,
                )
                for device in rtnetlink.devices(sock)
            ]

    def apply(self, step: Step) -> None:
        """Carry one step out; raises MultirootError with the kernel's reason."""
        if isinstance(step, AddPort | BringUp):
            self._set_port(step)
            return
        with self._opened(str(step)) as sock:
            if isinstance(step, AddBridge):
                rtnetlink.add_bridge(sock, step.name)
                return
            with self._socket(socket.AF_INET) as plain:
                index = ports.index_of(plain, step.name)
            if isinstance(step, AddAddress):
                rtnetlink.add_address(sock, index, step.address)
            elif isinstance(step, GiveToGuests):
                there = os.open(namespace.PATH, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    rtnetlink.move(sock, index, there)
                finally:
                    os.close(there)

    def _set_port(self, step: AddPort | BringUp) -> None:
        try:
            with self._socket(socket.AF_INET) as sock:
                if isinstance(step, AddPort):
                    ports.add_port(sock, step.name, step.bridge)
                else:
                    ports.bring_up(sock, step.name)
        except OSError as error:
            raise MultirootError(f"network: {step}: {error.strerror}") from error
