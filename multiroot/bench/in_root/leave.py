# SPDX-License-Identifier: GPL-2.0-or-later
"""The first half of kexec + PMEM (the LPC 2021 method).

The device state goes into persistent memory; then the machine enters a kernel that was loaded before.

Done as well as it can be: nothing is read from a disk, nothing is waited for that a VM does not need.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from multiroot import proc
from multiroot.arena.arena import Arena, Entry
from multiroot.arena.backing import opened
from multiroot.bench.in_root import relay
from multiroot.bench.in_root.baseline_vm import STATE, STATE_SIZE, BaselineVm
from multiroot.bench.in_root.carried import Carried
from multiroot.launch import kernels
from multiroot.vm.instance import VmState

INIT = "/usr/lib/multiroot/bench-resume"


def preload(kernel: str) -> None:
    """Load the kernel that is to come, its initrd, and a quiet command line that goes on with our init."""
    files = kernels.find(kernel)
    line = f"{Path('/proc/cmdline').read_text().strip()} quiet init={INIT}"
    initrd = [f"--initrd={files.initrd}"] if files.initrd else []
    proc.run(["kexec", "-l", files.kernel, *initrd, f"--command-line={line}"], timeout=120)


async def leave(vm: BaselineVm, tsc_khz: int, last_tick: int) -> None:
    """Stop the VM, save it, start the loaded kernel; comes back only with an error."""
    clock = vm.host.clock
    # Room for the state is made while the guest runs; allocating zeroes it.
    entry = await asyncio.to_thread(vm.host.arena.allocate, STATE, STATE_SIZE, vm.definition.checksum())
    ours, theirs = relay.make_pair()
    with theirs:
        await vm.qmp.give_fd(relay.FD_NAME, theirs.fileno())
    moments = {"begin": clock()}
    with vm.qmp.watch("STOP", "MIGRATION") as events:
        await vm.qmp.execute("stop")
        stopped = await events.next()
        moments["stopped"] = stopped.at_ns
        saving = asyncio.create_task(_collect(ours))
        await vm.qmp.execute("migrate", uri=relay.URI)
        await events.until("completed", "failed")
        state = await saving
    moments["saved"] = clock()
    await vm.end(VmState.HANDED)
    moments["ended"] = clock()
    os.sync()
    moments["left"] = clock()
    _store(vm.host.arena, entry, Carried(vm.definition, tsc_khz, last_tick, moments).pack(state))
    proc.run(["kexec", "-e"])


async def _collect(sock: socket.socket) -> bytes:
    parts = [chunk async for chunk in relay.chunks(sock)]
    return b"".join(parts)


def _store(arena: Arena, entry: Entry, data: bytes) -> None:
    with opened(arena.path) as backing, backing.map(entry.extent.offset, entry.extent.size) as mapping:
        mapping[: len(data)] = data
