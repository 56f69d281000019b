# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on the machine's disks that are disks of VMs: for VMs of this root and of the roots beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from multiroot.agent.context import Root
from multiroot.net.addresses import root_address
from multiroot.storage.storage import Endpoint, Storage, Surroundings
from multiroot.storage.storage_service import ask
from multiroot.vm.disk import LocalFile
from multiroot.vm.instance import Instance, VmState

_ON_ITS_WAY = (VmState.STARTING, VmState.INCOMING)  # its VMM may read before the VM is this root's


def make_storage(root: Root, vms: Callable[[], list[Instance]]) -> Storage:
    """For the agent whose loop runs this. `vms` lists those that this root knows."""
    loop = asyncio.get_running_loop()

    def others(path: str) -> Future[Endpoint | None]:
        peers = [peer for peer in root.peers.all() if peer.ready]
        channels = [lambda name=str(peer.root): root.neighbours.channel(name) for peer in peers]
        return asyncio.run_coroutine_threadsafe(ask(channels, path), loop)

    def may_use(path: str) -> bool:
        return any(_may_use(vm, path, root.me.root) for vm in vms())

    return Storage(Surroundings(root_address(root.me.root), others, may_use))


def _may_use(vm: Instance, path: str, root: int) -> bool:
    if not vm.active or LocalFile(path) not in [disk.local for disk in vm.definition.disks]:
        return False
    return vm.state in _ON_ITS_WAY or vm.word.read().root == root
