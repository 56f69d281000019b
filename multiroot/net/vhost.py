# SPDX-License-Identifier: GPL-2.0-or-later
"""vhost-net: the kernel passes frames between a tap and a guest's memory, without its VMM (linux/vhost.h)."""

from __future__ import annotations

import os
from pathlib import Path

DEVICE = Path("/dev/vhost-net")


def open_vhost(queues: int) -> tuple[int, ...]:
    """A descriptor for each queue of a card; none where the kernel has no vhost-net, or not for this user."""
    fds: list[int] = []
    try:
        for _ in range(queues):
            fds.append(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        for fd in fds:
            os.close(fd)
        return ()
    return tuple(fds)
