# SPDX-License-Identifier: GPL-2.0-or-later
"""kexec + persistent memory, the seed's method, as a contender: the machine's one kernel is replaced."""

from __future__ import annotations

import json
import time
from contextlib import closing

from multiroot.bench.contenders import SameKernelVm
from multiroot.bench.results.samples import Sample
from multiroot.errors import CommandError, WaitTimeoutError
from multiroot.lab.agents import Agents
from multiroot.lab.boot import Feed
from multiroot.lab.lab import Lab
from multiroot.lab.recorder import FEED_SOCKET
from multiroot.phases import Phase

NAME = "kexec-pmem"
TIMEOUT_S = 300
STARTING = "Starting new kernel"
RESULT = "/run/multiroot/bench.json"

# The seed's ten phases in its order: name, moment it begins with, moment it ends with.
PHASES = (
    ("VM suspend", "begin", "stopped"),
    ("VM save", "stopped", "saved"),
    ("QEMU shutdown", "saved", "ended"),
    ("userland shutdown", "ended", "left"),
    ("kernel shutdown", "left", "starting"),
    ("kernel startup", "starting", "initramfs"),
    ("userland startup", "initramfs", "found"),
    ("QEMU startup", "found", "qemu"),
    ("VM restore", "qemu", "loaded"),
    ("VM resume", "loaded", "resumed"),
)


class KexecPmem:
    """One sample a boot: afterwards the machine runs another kernel, and no new root can have the old one."""

    name = NAME

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
        return [Sample(NAME, 0, values, seed_phases(moments))]

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


def seed_phases(moments: dict[str, int]) -> tuple[Phase, ...]:
    """The ten phases from their moments, ns on the TSC clock."""
    return tuple(
        Phase(name, "kexec", moments[begin], moments[end] - moments[begin], blackout=name != "VM suspend")
        for name, begin, end in PHASES
    )
