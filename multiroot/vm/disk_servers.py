# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the servers of a VM's disks are there.

QEMU waits for a server that has gone, connects again by itself, and tells nobody: no event, and what
query-block says stays the same. Its connections tell. A server that ends closes its connection, which this
kernel knows at once, also when the guest reads and writes nothing. QEMU itself notices at the guest's next
request, and connects again then; so an NBD server without a connection is there if it answers us. An iSCSI
target QEMU asks for a sign of life every few seconds, and connects to it again as soon as that is missing; so
one without a connection is away.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from multiroot.vm import nbd
from multiroot.vm.disk import LocalFile, Outside, Server
from multiroot.vm.iscsi_target import IscsiTarget

PROC = Path("/proc")
LOOK_S = 1.0  # so often; a kernel tells nobody of another process's connections
_ESTABLISHED = "01"
_WORD = 4  # bytes, in which addresses are written as numbers of the CPU's byte order


def missing(pid: int, servers: Collection[Server], proc: Path = PROC) -> set[Server]:
    """Those of a VMM's servers that it has no connection to, and that do not answer. Of files that a root
    serves the door tells.
    """
    files = {server for server in servers if isinstance(server, LocalFile)}
    outside = {server for server in servers if not isinstance(server, LocalFile)}
    left = outside - connected(pid, outside, proc)
    away: set[Server] = {each for each in left if isinstance(each, IscsiTarget) or not nbd.answers(each)}
    return away | {file for file in files if file.away.exists()}


def connected(pid: int, servers: Collection[Outside], proc: Path = PROC) -> set[Outside]:
    """Those of `servers` that the process has a connection to; none if it has ended."""
    folder = proc / str(pid)
    with suppress(OSError):
        sockets = _sockets(folder)
        there = {where for name in ("tcp", "tcp6") for where in _established(folder / "net" / name, sockets)}
        return {server for server in servers if _written(server) in there}
    return set()


def _sockets(folder: Path) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found = set()
    for entry in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(entry.readlink()))
    return {link.removeprefix("socket:[").removesuffix("]") for link in found if link.startswith("socket:[")}


def _established(table: Path, sockets: set[str]) -> set[str]:
    """Where the connections in a table of the kernel's lead that are on one of these sockets."""
    try:
        lines = table.read_text().splitlines()[1:]
    except FileNotFoundError:
        return set()  # a kernel without IPv6
    found = set()
    for line in lines:
        _, _, remote, state, *_, inode = line.split()[:10]
        if state == _ESTABLISHED and inode in sockets:
            found.add(remote)
    return found


def _written(server: Outside) -> str:
    """Address and port as the kernel's tables have them (Documentation/networking/proc_net_tcp.rst)."""
    packed = ipaddress.ip_address(server.host).packed
    words = [packed[at : at + _WORD][::-1].hex().upper() for at in range(0, len(packed), _WORD)]
    return f"{''.join(words)}:{server.port:04X}"
