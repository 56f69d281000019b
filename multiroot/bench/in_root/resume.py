# SPDX-License-Identifier: GPL-2.0-or-later
"""The second half of kexec + PMEM (the LPC 2021 method).

In the new kernel a QEMU starts on the RAM that was left, and loads the device state.

Started by /usr/lib/multiroot/bench-resume while drivers are being loaded; waits for them where they are
needed. What was measured goes to `RESULT`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sys
from pathlib import Path
from typing import Any

from multiroot.arena.arena import Arena
from multiroot.arena.atomics import tsc_clock
from multiroot.arena.backing import find_device, opened
from multiroot.bench.in_root import relay
from multiroot.bench.in_root.baseline_vm import RESULT, ROOT, RUN_DIR, STATE, BaselineVm, UnpluggedTaps
from multiroot.bench.in_root.carried import unpack
from multiroot.bench.workload import enough_ticks
from multiroot.errors import CommandError, MultirootError
from multiroot.root.marks import Marks
from multiroot.vm import ticks
from multiroot.vm.host import Host
from multiroot.vm.instance import VmState
from multiroot.vm.qemu.vmm import QemuFactory
from multiroot.vm.stream import wait_for_ticks

LOCK = Path("/run/multiroot/devices.lock")


async def resume() -> dict[str, Any]:
    """Bring the VM back; every moment of it, and how its guest fared."""
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    arena = Arena(find_device().node, ROOT)
    extent = arena.find(STATE).extent
    with opened(arena.path) as backing, backing.map(extent.offset, extent.size) as mapping:
        carried, state = unpack(mapping[:])
    clock = tsc_clock(carried.tsc_khz)
    moments = dict(carried.moments)
    vm = BaselineVm(
        Host(ROOT, arena, clock, RUN_DIR, QemuFactory(), UnpluggedTaps()),
        carried.definition,
        arena.find(carried.definition.name),
    )
    moments["found"] = clock()
    await vm.start(giver=vm.owner)
    moments["qemu"] = clock()
    await _load(vm, state, moments)
    vm.state = VmState.RUNNING
    seen = await wait_for_ticks(vm, enough_ticks(carried.definition.append))
    judged = ticks.continuity(seen.ticks)
    marks = {mark.name: mark.at_ns for mark in Marks(clock).all()}
    return {
        "moments": moments,
        "marks": marks,
        "kernel": Path("/proc/sys/kernel/osrelease").read_text().strip(),
        "state_bytes": len(state),
        "last_tick": carried.last_tick,
        "first_tick": seen.ticks[0].counter,
        "first_tick_ns": seen.ticks[0].seen_ns,
        "missing_ticks": len(judged.missing) if judged else -1,
        "bad_bytes": judged.bad_bytes if judged else -1,
    }


async def _load(vm: BaselineVm, state: bytes, moments: dict[str, int]) -> None:
    ours, theirs = relay.make_pair()
    with theirs:
        await vm.qmp.give_fd(relay.FD_NAME, theirs.fileno())
    with vm.qmp.watch("MIGRATION", "RESUME") as events:
        await vm.qmp.execute("migrate-incoming", uri=relay.URI)
        feeding = asyncio.create_task(relay.feed(ours, _once(state)))
        loaded = await events.until("completed", "failed")
        if loaded.data["status"] == "failed":
            raise CommandError("QEMU did not accept the device state", vm.folder.last_words())
        moments["loaded"] = loaded.at_ns
        await feeding
        # It was saved stopped, so it does not go on by itself.
        await vm.qmp.execute("cont")
        while (event := await events.next()).name != "RESUME":
            pass
        moments["resumed"] = event.at_ns


async def _once(data: bytes) -> Any:
    yield data


def main() -> None:
    """Leave the result, or why there is none."""
    try:
        result = asyncio.run(resume())
    except MultirootError as error:
        result = {"error": str(error)}
    RESULT.write_text(json.dumps(result))
    sys.exit(1 if "error" in result else 0)


if __name__ == "__main__":
    main()
