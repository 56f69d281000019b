# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways of taking a VM from one QEMU to another: ours between two kernels, others' within one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from multiroot.bench.samples import Sample
from multiroot.errors import CommandError
from multiroot.lab.agents import Agents
from multiroot.lab.execution import Conversation
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.rpc.v1 import vm_pb2
from multiroot.vm import ticks
from multiroot.vm.messages import ticks_from_proto

TICKS = 120  # on either side of a handoff: more than a second of the guest's life
ANSWER_TIMEOUT_S = 300.0

Show = Callable[[Phase], None]
OTHER = {"old": "new", "new": "old"}

# In the order in which they are explained; docs/performance.md says what each is.
SAME_KERNEL = ("in-place", "pre-copy", "stop-and-copy", "save-and-restore")


class MultiRoot:
    """Our handoff, to and fro between the roots."""

    def __init__(
        self, name: str, lab: Lab, agents: Agents, definitions: list[vm_pb2.VmDefinition], show: Show
    ):
        self.name = name
        self._lab = lab
        self._agents = agents
        self._definitions = definitions
        self._show = show
        self._where = "old"
        self._running: list[str] = []

    def prepare(self) -> None:
        for definition in self._definitions:
            self._agents.run(definition)
            self._running.append(definition.name)
        for name in self._running:
            self._agents.ticks(name, "old", TICKS)
        self._signal("STOP")

    def sample(self) -> list[Sample]:
        self._signal("CONT")
        here, there = self._where, OTHER[self._where]
        for name in self._running:
            self._settle(name, here)
        results = [self._agents.hand_over(name, there, self._show) for name in self._running]
        self._where = there
        samples = []
        for result, phases in results:
            before = ticks_from_proto(self._agents.ticks(result.name, here))
            after = ticks_from_proto(self._agents.ticks(result.name, there, TICKS))
            joined = before.then(after).ticks
            judged = ticks.continuity(joined)
            values: dict[str, float] = {
                "blackout_ns": result.resumed_ns - result.stopped_ns,
                "gap_ns": ticks.gap_around(joined, result.stopped_ns, result.resumed_ns),
                "total_ns": result.resumed_ns - min(phase.start_ns for phase in phases),
                "sent_bytes": result.device_state_bytes,
                "missing_ticks": len(judged.missing) if judged else -1,
                "bad_bytes": judged.bad_bytes if judged else -1,
            }
            samples.append(Sample(self.name, 0, values, tuple(phases)))
        self._signal("STOP")
        return samples

    def close(self) -> None:
        self._signal("CONT")
        for name in self._running:
            self._agents.stop(name, self._where)

    def _settle(self, name: str, root: str) -> None:
        seen = len(self._agents.ticks(name, root).counter)
        self._agents.ticks(name, root, seen + TICKS)

    def _signal(self, signal: str) -> None:
        """Keep the guests off the CPUs while others are measured; a stopped QEMU takes no time at all."""
        for name in self._running:
            pid = self._agents.vm(name, self._where).pid
            self._lab.run(["kill", f"-{signal}", str(pid)], root=self._where)


class SameKernelVm:
    """The one VM of all that happens within the old root's kernel, and the program that drives it there."""

    def __init__(self, lab: Lab, **definition: Any) -> None:
        self._lab = lab
        self._definition = definition
        self._driver: Conversation | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Raises CommandError with the driver's words when it failed."""
        request = json.dumps({"do": do, **arguments})
        answer: dict[str, Any] = json.loads(self._running().ask(request, ANSWER_TIMEOUT_S))
        if "error" in answer:
            raise CommandError(answer["error"])
        return answer

    def say(self, do: str) -> None:
        """For what is never answered."""
        self._running().say(json.dumps({"do": do}))

    def _running(self) -> Conversation:
        if self._driver is None:
            self._driver = Conversation(self._lab.channel("old"), ["python3", "-m", "multiroot.bench.inside"])
            self.ask("start", **self._definition)
            self.ask("pause")
        return self._driver

    def close(self) -> None:
        """End it, and the VM."""
        if self._driver is not None:
            self._driver.end(ANSWER_TIMEOUT_S)
            self._driver = None


class SameKernel:
    """One of `SAME_KERNEL`. They share a VM."""

    def __init__(self, name: str, vm: SameKernelVm) -> None:
        self.name = name
        self._vm = vm

    def prepare(self) -> None:
        self._vm.ask("pause")

    def sample(self) -> list[Sample]:
        self._vm.ask("go")
        try:
            return [Sample(self.name, 0, self._vm.ask("sample", way=self.name))]
        finally:
            self._vm.ask("pause")

    def close(self) -> None:
        self._vm.close()
