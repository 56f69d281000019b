# SPDX-License-Identifier: GPL-2.0-or-later
"""What every part of the agent knows of the root that it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from multiroot.device.handle import Device
from multiroot.phases import Phases
from multiroot.root.identity import SERVICES, Identity
from multiroot.root.marks import Marks
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers
from multiroot.rpc.client import AGENT_SOCKET
from multiroot.rpc.token_file import TOKEN_FILE
from multiroot.watch.signal import Signal


@dataclass(frozen=True)
class Options:
    """Where the agent listens and where it finds its files."""

    socket: Path = AGENT_SOCKET
    listen: tuple[str, ...] = ()
    token: Path = TOKEN_FILE
    kernels: Path = Path("/usr/lib/multiroot/kernels")
    guests: Path = Path("/usr/lib/multiroot/guests")
    run_dir: Path = Path("/run/multiroot")
    services: Path = SERVICES
    uplink: str = ""  # the card of the guests' network, by name or MAC address
    gateway: str = ""  # the IPv4 address there by which VMMs reach servers elsewhere
    drivers: Path | None = None  # locked while drivers are loaded that only VMs and their disks need
    metrics: tuple[str, int] | None = None  # where to tell them
    failpoints: bool = False  # obey the lab's orders (multiroot/failpoints.py)


@dataclass(frozen=True)
class Root:
    """This root. `clock` returns ns on the TSC clock that all roots share; `tsc_khz` is its rate. `news` is
    rung by what changes something that is told to those who watch.
    """

    me: Identity
    device: Device
    clock: Callable[[], int]
    tsc_khz: int
    marks: Marks
    peers: Peers
    neighbours: Neighbours
    phases: Phases
    options: Options
    news: Signal = field(default_factory=Signal)
