# SPDX-License-Identifier: GPL-2.0-or-later
"""kexec + PMEM (the LPC 2021 method) as a contender: kexec replaces the machine's one kernel."""

from __future__ import annotations

import json
import time
from contextlib import closing

from multiroot.bench.names import KEXEC
from multiroot.bench.results.samples import Sample
from multiroot.bench.same_kernel import SameKernelVm
from multiroot.errors import CommandError, WaitTimeoutError
from multiroot.lab.agents import Agents
from multiroot.lab.boot import Feed
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import FEED_SOCKET
from multiroot.phase_names import KexecPhase
from multiroot.phases import Phase

TIMEOUT_S = 300
STARTING = "Starting new kernel"
RESULT = "/run/multiroot/bench.json"

# Name, moment it begins with, moment it ends with.
PHASES = (
    (KexecPhase.VM_SUSPEND, "begin", "stopped"),
    (KexecPhase.VM_SAVE, "stopped", "saved"),
    (KexecPhase.QEMU_SHUTDOWN, "saved", "ended"),
    (KexecPhase.USERLAND_SHUTDOWN, "ended", "left"),
    (KexecPhase.KERNEL_SHUTDOWN, "left", "starting"),
    (KexecPhase.KERNEL_STARTUP, "starting", "initramfs"),
    (KexecPhase.USERLAND_STARTUP, "initramfs", "found"),
    (KexecPhase.QEMU_STARTUP, "found", "qemu"),
    (KexecPhase.VM_RESTORE, "qemu", "loaded"),
    (KexecPhase.VM_RESUME, "loaded", "resumed"),
)


class KexecPmem:
    """One sample a boot: afterwards the machine runs another kernel, and no new root can have the old one."""

    name = KEXEC

    def __init__(self, lab: Lab, agents: Agents, vm: SameKernelVm, kernel: str) -> None:
        self._lab = lab
        self._agents = agents
        self._vm = vm
        self._kernel = kernel

    def prepare(self) -> None:
        self._vm.ask("preload", kernel=self._kernel)

    def sample(self) -> list[Sample]:
        self._vm.ask("go")
        offset = self._agents.clock_offset()
        with closing(Feed(self._lab.state.folder / FEED_SOCKET)) as feed:
            self._vm.say("leave")
            starting = self._wait(feed, STARTING) + offset
            self._wait(feed, "multiroot: mark exec ")
        result = json.loads(self._lab.run(["cat", RESULT]).stdout)
        if "error" in result:
            raise CommandError(result["error"])
        moments = {**result["moments"], "starting": starting, "initramfs": result["marks"]["initramfs"]}
        values: dict[str, float] = {
            "blackout_ns": moments["resumed"] - moments["stopped"],
            "gap_ns": result["first_tick_ns"] - moments["stopped"],
            "total_ns": moments["resumed"] - moments["begin"],
            "sent_bytes": result["state_bytes"],
            "missing_ticks": result["missing_ticks"],
            "bad_bytes": result["bad_bytes"],
        }
        return [Sample(KEXEC, 0, values, ten_phases(moments))]

    def close(self) -> None:
        """The machine's kernel is gone, and all that ran under it."""

    def _wait(self, feed: Feed, text: str) -> int:
        """When a console line with `text` came, ns on the workstation's clock."""
        until = time.monotonic_ns() + TIMEOUT_S * 1_000_000_000
        while messages := feed.wait(until):
            for message in messages:
                if text in message.get("text", ""):
                    return int(message["ns"])
        raise WaitTimeoutError(f"no {text!r} on the console within {TIMEOUT_S} s")


def ten_phases(moments: dict[str, int]) -> tuple[Phase, ...]:
    """The ten phases from their moments, ns on the TSC clock."""
    return tuple(
        Phase(
            name,
            "kexec",
            moments[begin],
            moments[end] - moments[begin],
            blackout=name is not KexecPhase.VM_SUSPEND,
        )
        for name, begin, end in PHASES
    )
