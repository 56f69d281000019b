# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root's network asks of the kernel: by ioctl for each handoff, else by rtnetlink with pyroute2."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import socket
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from multiroot.errors import MultirootError
from multiroot.net import namespace, ports
from multiroot.net.plan import AddAddress, AddBridge, AddPort, BringUp, GiveToGuests, Link, Step

log = logging.getLogger(__name__)

# A kernel answers at once, or when others let go of its network devices. An answer for which it had no memory
# is lost: it says so on the socket (ENOBUFS), and pyroute2 keeps that apart from the request, which waits on.
ANSWER_S = 20.0


class NoAnswerError(MultirootError):
    """What was asked of the kernel may have been done, or not."""


def _load() -> Any:
    """pyroute2's rtnetlink client.

    `import pyroute2` also imports its database, conntrack and nftables parts, which nobody here uses and
    which make up about half of the time: 1.4 s in a root under TCG. So the package is entered without its
    __init__, which whoever imports pyroute2 later still gets.
    """
    if "pyroute2" in sys.modules:
        from pyroute2.iproute.linux import AsyncIPRoute

        return AsyncIPRoute
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or spec.submodule_search_locations is None:
        raise MultirootError("pyroute2 is not installed")
    package = types.ModuleType("pyroute2")
    package.__path__ = spec.submodule_search_locations
    package.__spec__ = spec
    sys.modules["pyroute2"] = package
    try:
        from pyroute2.iproute.linux import AsyncIPRoute
    finally:
        del sys.modules["pyroute2"]
    return AsyncIPRoute


class Netlink:
    """Requests in this network namespace, or in the one at `inside`.

    Each has a socket of its own: pyroute2 keeps for ever whatever a socket gets when nobody waits for it any
    more, such as the second acknowledgement of a request, and an agent lives for months.
    """

    def __init__(self, inside: Path | None = None) -> None:
        self._inside = inside
        # Now: no handoff is to wait for an import.
        self._client = _load()

    @asynccontextmanager
    async def _opened(self, doing: str) -> AsyncIterator[Any]:
        """An open socket; raises MultirootError with the kernel's reason for what it refuses in the body, and
        NoAnswerError when it does not answer there.
        """
        made = self._socket(socket.AF_NETLINK, socket.NETLINK_ROUTE)
        ipr: Any = self._client(fileno=made.detach())
        try:
            with _errors(doing):
                async with asyncio.timeout(ANSWER_S):
                    yield ipr
        finally:
            ipr.close()

    def _socket(self, family: int, protocol: int = 0) -> socket.socket:
        # A socket stays in the namespace that it was made in.
        with namespace.entered(self._inside) if self._inside else nullcontext():
            return socket.socket(family, socket.SOCK_DGRAM, protocol)

    async def links(self) -> list[Link]:
        """All network devices with their IPv4 addresses."""
        try:
            return await self._links()
        except NoAnswerError as error:
            log.warning("%s; once more", error.message)
        return await self._links()

    async def _links(self) -> list[Link]:
        async with self._opened("list network devices") as ipr:
            addresses: dict[int, list[str]] = {}
            async for message in await ipr.get_addr(family=2):
                address = f"{message.get('local') or message.get('address')}/{message['prefixlen']}"
                addresses.setdefault(message["index"], []).append(address)
            return [
                Link(
                    index=message["index"],
                    name=message.get("ifname"),
                    master=message.get("master") or 0,
                    up=bool(message["flags"] & ports.IFF_UP),
                    addresses=tuple(addresses.get(message["index"], ())),
                    mac=str(message.get("address") or "").lower(),
                )
                async for message in await ipr.get_links()
            ]

    async def apply(self, step: Step) -> None:
        """Carry one step out; raises MultirootError with the kernel's reason."""
        if isinstance(step, AddPort | BringUp):
            self._set_port(step)
            return
        async with self._opened(str(step)) as ipr:
            if isinstance(step, AddBridge):
                await ipr.link("add", ifname=step.name, kind="bridge")
                return
            index = await _index(ipr, step.name)
            if isinstance(step, AddAddress):
                address, _, length = step.address.partition("/")
                await ipr.addr("add", index=index, address=address, prefixlen=int(length))
            elif isinstance(step, GiveToGuests):
                there = os.open(namespace.PATH, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    await ipr.link("set", index=index, net_ns_fd=there)
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


async def _index(ipr: Any, name: str) -> int:
    found = await ipr.link_lookup(ifname=name)
    if not found:
        raise MultirootError(f"there is no network device {name}")
    return int(found[0])


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise MultirootError(f"network: {doing}: {error}") from error
    except TimeoutError as error:
        raise NoAnswerError(f"network: {doing}: the kernel has not answered within {ANSWER_S:g} s") from error
