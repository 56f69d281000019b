# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this root, or the reason why it can't run any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc.aio

from multiroot.agent.context import Root
from multiroot.agent.files import make_storage
from multiroot.arena.arena import Arena, open_or_format
from multiroot.arena.backing import find_device
from multiroot.errors import MultirootError
from multiroot.handoff.handoff_service import HandoffService
from multiroot.handoff.taker import Taker
from multiroot.net.addresses import root_address
from multiroot.net.network import RootNetwork
from multiroot.passthrough.devices import Devices, Surroundings
from multiroot.root.identity import FIRST_ROOT
from multiroot.rpc.server import PeerChannel, Refusal
from multiroot.rpc.v1 import handoff_pb2_grpc, storage_pb2_grpc, vm_pb2_grpc
from multiroot.storage.filesystems import Filesystem
from multiroot.storage.storage import Storage
from multiroot.storage.storage_service import StorageService
from multiroot.vm.elsewhere import no_other_root
from multiroot.vm.home import Homes, KeptVariables
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager
from multiroot.vm.qemu.vmm import QemuFactory
from multiroot.vm.vm_service import VmService

log = logging.getLogger("multirootd")

SERVICES = ("multiroot.v1.VmService", "multiroot.v1.HandoffService", "multiroot.v1.StorageService")


class Guests:
    """VMs and the taker of handoffs. A root without a usable arena has neither and refuses their calls."""

    def __init__(
        self,
        manager: VmManager | MultirootError,
        taker: Taker | None = None,
        channel: PeerChannel = no_other_root,
        storage: Storage | None = None,
    ) -> None:
        """`manager` is the error that says why, in a root that can't run VMs; `channel` leads to peers."""
        self._manager = manager
        self._taker = taker
        self._channel = channel
        self.storage = storage

    @classmethod
    async def open(cls, root: Root, network: RootNetwork) -> Guests:
        """Open the arena and adopt the VMs that an earlier agent of this root left running."""
        try:
            arena = await asyncio.to_thread(_open_arena, root)
        except MultirootError as error:
            log.warning("no VMs here: %s", error)
            return cls(error)
        number = root.me.root
        managers: list[VmManager] = []
        storage = make_storage(root, lambda: [vm for each in managers for vm in each.last_seen()])
        host = Host(
            root=number,
            arena=arena,
            clock=root.clock,
            run_dir=root.options.run_dir / "vms",
            vmm=QemuFactory(),
            network=network,
            devices=Devices(arena, _surroundings(root)),
            guests=root.options.guests,
            variables=KeptVariables(Homes(arena)),
            open_door=storage.open_door,
            changed=root.news.ring,
        )
        root.news.quiet = lambda: host.agent.needed
        manager = VmManager(host)
        managers.append(manager)
        await manager.adopt()
        network.tell_stations(manager.seen)
        taker = Taker(manager, root.phases.side, root_address(number))
        return cls(manager, taker, root.neighbours.channel, storage)

    @property
    def manager_or_none(self) -> VmManager | None:
        """None in a root that can't run VMs."""
        return None if isinstance(self._manager, MultirootError) else self._manager

    @property
    def manager(self) -> VmManager:
        """Raises the error that says why there are no VMs here."""
        if isinstance(self._manager, MultirootError):
            raise self._manager
        return self._manager

    def owned_by(self, root: int) -> list[str]:
        """Names of the VMs that root number `root` owns by their owner words; none without an arena."""
        if isinstance(self._manager, MultirootError):
            return []
        return list(self._manager.host.arena.vms_of(root))

    @property
    def _devices(self) -> Devices | None:
        """None also where there are no VMs at all."""
        return None if isinstance(self._manager, MultirootError) else self._manager.host.devices

    def inherit_devices(self) -> None:
        """All other roots have ended: their devices are this root's."""
        if devices := self._devices:
            devices.inherit()

    def stop_devices(self) -> None:
        """Another root has ended, this one goes on: nothing writes to that one's memory any more."""
        if devices := self._devices:
            devices.stop_ended()

    def staying_devices(self) -> dict[str, str]:
        """Functions of VMs in the new root that would end with this root, and the cards they are parts of."""
        devices = self._devices
        return devices.staying() if devices else {}

    def settle_disks(self) -> Sequence[int]:
        """Begin to serve no more files to VMs; returns the processes that serve some."""
        return self.storage.settle() if self.storage else ()

    def stop_disks(self, kept: Sequence[Filesystem] = ()) -> tuple[Filesystem, ...]:
        """Serve no files to VMs any more; returns the filesystems that they are on."""
        return self.storage.stop(kept) if self.storage else ()

    def come_to_disks(self, left: Sequence[Filesystem]) -> None:
        """Mount filesystems, and serve VMs' files on them."""
        if self.storage:
            self.storage.come(left)

    def part_from(self, root: int) -> None:
        """Root number `root` has ended: no disk of a VM is read there any more."""
        if self.storage:
            self.storage.part_from(root_address(root))

    def owners(self) -> dict[str, int]:
        """The numbers of the roots that own VMs, by the VMs' names; none without an arena."""
        if isinstance(self._manager, MultirootError):
            return {}
        return {entry.name: entry.owner.root for entry in self._manager.host.arena.vms()}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer VmService and HandoffService, or refuse their calls with the reason."""
        if isinstance(self._manager, MultirootError):
            server.add_generic_rpc_handlers([Refusal(name, self._manager) for name in SERVICES])
            return
        assert self._taker is not None
        vm_pb2_grpc.add_VmServiceServicer_to_server(VmService(self._manager, self._channel), server)
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(HandoffService(self._taker), server)
        assert self.storage is not None
        storage_pb2_grpc.add_StorageServiceServicer_to_server(StorageService(self.storage), server)

    async def shut_door(self) -> None:
        """Take no VM any more. Those being taken are given up, unless this root owns them by now."""
        if self._taker:
            self.manager.door.shut()
            await self._taker.abort_all()

    def open_door(self) -> None:
        """Take VMs again."""
        if self._taker:
            self.manager.door.open()

    async def close(self) -> None:
        """Give up handoffs that are being taken. VMs go on."""
        if self._taker:
            await self._taker.close()
        if self.storage:
            await asyncio.to_thread(self.storage.close)


def _surroundings(root: Root) -> Surroundings:
    return Surroundings(
        root=root.me.root,
        ecams=lambda: root.device.ledger().ecams,
        run_dir=root.options.run_dir / "devices",
    )


def _open_arena(root: Root) -> Arena:
    """The arena; raises MultirootError when this machine has none or it is broken."""
    node = find_device().node
    if root.me.root == FIRST_ROOT:
        return open_or_format(node, root.me.root, root.device.has_ended)
    return Arena(node, root.me.root, root.device.has_ended)
