# SPDX-License-Identifier: GPL-2.0-or-later
"""RootService: what any root's agent answers about its root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiroot import __version__, arch
from multiroot.clocks import set_wall_clock
from multiroot.errors import BadRequestError, MultirootError
from multiroot.root import identity
from multiroot.root.marks import Marks
from multiroot.root.peers import Peers, PeerView, Role
from multiroot.rpc.v1 import common_pb2, root_pb2, root_pb2_grpc
from multiroot.units import format_cpu_list

_END_OF_TIME = 1 << 62  # the kernel counts ns in 63 bits, and takes no time close to their end
_ROLES = {
    Role.PARENT: root_pb2.PeerStatus.ROLE_PARENT,
    Role.CHILD: root_pb2.PeerStatus.ROLE_CHILD,
}


@dataclass(frozen=True)
class RootParts:
    """What the service answers from.

    `clock` returns ns on the TSC clock, whose rate is `tsc_khz`. `vms` names the VMs that this root owns.
    """

    me: identity.Identity
    clock: Callable[[], int]
    tsc_khz: int
    marks: Marks
    peers: Peers
    vms: Callable[[], list[str]]


class RootService(root_pb2_grpc.RootServiceServicer):
    """Status and clock of this root."""

    def __init__(self, parts: RootParts) -> None:
        self._parts = parts

    async def GetStatus(self, request: root_pb2.GetStatusRequest, context: Any) -> root_pb2.RootStatus:
        cpus = identity.online_cpus()
        ids = arch.current().cpus.hardware_ids(Path("/proc/cpuinfo").read_text())
        return root_pb2.RootStatus(
            root=self._parts.me.root,
            kernel_release=self._parts.me.kernel_release,
            boot_id=self._parts.me.boot_id,
            cpus=format_cpu_list(cpus),
            hardware_ids=[ids[cpu] for cpu in cpus],
            memory=[
                common_pb2.MemoryRange(start=range_.start, size=range_.size, name=range_.name)
                for range_ in identity.parse_memory(Path("/proc/iomem").read_text())
            ],
            uptime_s=identity.uptime_s(),
            now_ns=self._parts.clock(),
            tsc_khz=self._parts.tsc_khz,
            marks=[root_pb2.Mark(name=mark.name, at_ns=mark.at_ns) for mark in self._parts.marks.all()],
            peers=[self._peer(peer.view()) for peer in self._parts.peers.all()],
            agent_version=__version__,
            devices=identity.pci_functions(),
            vms=self._parts.vms(),
        )

    async def SetClock(self, request: root_pb2.SetClockRequest, context: Any) -> root_pb2.SetClockResponse:
        now = self._parts.clock() + request.wall_offset_ns
        if not 0 <= now < _END_OF_TIME:
            raise BadRequestError(f"{now} ns since 1970 is no time of day")
        try:
            set_wall_clock(self._parts.clock, request.wall_offset_ns)
        except OSError as error:
            raise MultirootError(f"cannot set the clock: {error.strerror}") from error
        return root_pb2.SetClockResponse()

    def _peer(self, view: PeerView) -> root_pb2.PeerStatus:
        return root_pb2.PeerStatus(
            role=_ROLES[view.role],
            root=view.root,
            state=view.state,
            heartbeat_age_ns=view.heartbeat_age_ns,
            address=view.address,
            kernel_release=view.kernel_release,
        )
