# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a VM's disks are in this root."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from multiroot.errors import ConflictError
from multiroot.vm import iscsi, nbd, pmem
from multiroot.vm.disk import Disk, Server
from multiroot.vm.disk_content import HEAD, Content
from multiroot.vm.iscsi_login import Login
from multiroot.vm.iscsi_target import IscsiTarget
from multiroot.vm.pmem import Pmem


def find(disk: Disk) -> Pmem | None:
    """Its device, which nobody here uses; None for one that a server has. Raises what `pmem.find` raises."""
    if disk.address is None:
        return None
    return pmem.find(disk.address, writable=not disk.read_only)


def look(disk: Disk, here: Pmem | None, login: Login | None = None) -> Content:
    """What is in it; `login` is for a target that wants one. Raises ConflictError if it can't be read,
    BadRequestError if its server lacks it.
    """
    if here is not None:
        return Content(here.size, here.read_only, _read(here.node))
    server = disk.server
    assert server
    export = iscsi.look(server, HEAD, login) if isinstance(server, IscsiTarget) else nbd.look(server, HEAD)
    return Content(export.size, export.read_only, export.head)


def reach(server: Server, login: Login | None = None) -> None:
    """Raises ServerGoneError if nobody answers, BadRequestError if that server does not serve the disk."""
    if isinstance(server, IscsiTarget):
        iscsi.reach(server, login)
    else:
        nbd.reach(server)


def _read(node: Path) -> bytes:
    """Past this root's cache, where it would stay: other roots write there, too."""
    try:
        fd = os.open(node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, HEAD) as buffer:
                return buffer[: os.preadv(fd, [buffer], 0)]
        finally:
            os.close(fd)
    except OSError as error:
        raise ConflictError(f"{node} cannot be read: {error.strerror}") from error
