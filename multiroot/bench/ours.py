# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own way of taking VMs from one QEMU to another: between two kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multiroot.bench.results.samples import Sample
from multiroot.bench.workload import BOOT_TIMEOUT_S, enough_ticks
from multiroot.errors import MultirootError
from multiroot.lab.agents import Agents
from multiroot.lab.lab import Lab
from multiroot.phases import Phase
from multiroot.roles import OTHER
from multiroot.rpc.v1 import coordinator_pb2, vm_pb2
from multiroot.vm import ticks
from multiroot.vm.messages import ticks_from_proto

Show = Callable[[Phase], None]


class Pool:
    """VMs that contenders share, each in one of the roots; stopped as long as nobody wants it."""

    def __init__(self, lab: Lab, agents: Agents, show: Show) -> None:
        self._lab = lab
        self._agents = agents
        self._show = show
        self._where: dict[str, str] = {}
        self._ticks: dict[str, int] = {}  # so many on either side of a handoff

    def need(self, definitions: Sequence[vm_pb2.VmDefinition]) -> None:
        """Have these run, and then stop; those that do already are left alone."""
        started = [each for each in definitions if each.name not in self._where]
        for definition in started:
            self._agents.run(definition)
            self._where[definition.name] = "old"
            self._ticks[definition.name] = enough_ticks(definition.append)
        try:
            for definition in started:
                self._agents.ticks(definition.name, "old", self._ticks[definition.name], BOOT_TIMEOUT_S)
                self._signal("STOP", definition.name)
        except MultirootError:
            # One whose guest does not come up would take time from all others.
            self.drop([each.name for each in started])
            raise

    def drop(self, names: Sequence[str]) -> None:
        """End these."""
        for name in names:
            self._signal("CONT", name)
            self._agents.stop(name, self._where.pop(name))

    def wake(self, names: Sequence[str]) -> None:
        """Let VMs run, and wait until each has for a while."""
        for name in names:
            self._signal("CONT", name)
        for name in names:
            seen = len(self._agents.ticks(name, self._where[name]).counter)
            self._agents.ticks(name, self._where[name], seen + self._ticks[name])

    def rest(self, names: Sequence[str]) -> None:
        """Keep the guests off the CPUs while others are measured; a stopped QEMU takes no time at all."""
        for name in names:
            self._signal("STOP", name)

    def hand_over(self, names: Sequence[str]) -> list[tuple[coordinator_pb2.HandoffResult, list[Phase]]]:
        """To the other root, by one call for all that are in the same."""
        there = OTHER[self._where[names[0]]]
        done = self._agents.hand_over(names, there, self._show)
        self.moved(names, there)
        return done

    def moved(self, names: Sequence[str], there: str) -> None:
        """Somebody else has handed these over."""
        self._where |= dict.fromkeys(names, there)

    def get_ready(self, names: Sequence[str]) -> None:
        """Have VMMs wait in the other root for those that are in the same."""
        self._agents.get_ready(names, OTHER[self._where[names[0]]], self._show)

    def gather(self, names: Sequence[str]) -> None:
        """Have all of these in the root where the first is: contenders share them, and left them anywhere."""
        here = self._where[names[0]]
        away = [name for name in names if self._where[name] != here]
        if away:
            self.wake(away)
            self.hand_over(away)
            self.rest(away)

    def judge(self, result: coordinator_pb2.HandoffResult, phases: list[Phase]) -> dict[str, float]:
        """What one handoff was like, once the guest has run for a while after it."""
        there = self._where[result.name]
        before = ticks_from_proto(self._agents.ticks(result.name, OTHER[there]))
        after = ticks_from_proto(self._agents.ticks(result.name, there, self._ticks[result.name]))
        joined = before.then(after).ticks
        judged = ticks.continuity(joined)
        return {
            "blackout_ns": result.resumed_ns - result.stopped_ns,
            "gap_ns": ticks.gap_around(joined, result.stopped_ns, result.resumed_ns),
            **ticks.gap_over(joined, result.stopped_ns, result.resumed_ns),
            "total_ns": result.resumed_ns - min(phase.start_ns for phase in phases),
            "sent_bytes": result.device_state_bytes,
            "missing_ticks": len(judged.missing) if judged else -1,
            "bad_bytes": judged.bad_bytes if judged else -1,
        }

    def where(self, name: str) -> str:
        """The root it is in."""
        return self._where[name]

    def close(self) -> None:
        """End all of them; twice is fine."""
        self.drop(list(self._where))

    def _signal(self, signal: str, name: str) -> None:
        root = self._where[name]
        pid = self._agents.vm(name, root).pid
        self._lab.run(["kill", f"-{signal}", str(pid)], root=root)


class MultiRoot:
    """Our handoff of some VMs by one command, to the root where they are not.

    Gives a sample for each VM, and in the last one of them `all_ns`, from the command's start until the last
    VM ran.
    """

    def __init__(
        self, name: str, pool: Pool, definitions: Sequence[vm_pb2.VmDefinition], *, ready: bool = False
    ) -> None:
        """With `ready`, VMMs wait for them before the command is given."""
        self.name = name
        self._ready = ready
        self._pool = pool
        self._definitions = definitions
        self._names = [definition.name for definition in definitions]

    def prepare(self) -> None:
        self._pool.need(self._definitions)

    def sample(self) -> list[Sample]:
        self.wake()
        samples = self.hand_over()
        self.rest()
        return samples

    def wake(self) -> None:
        """Have the VMs run, in one root."""
        self._pool.gather(self._names)
        self._pool.wake(self._names)

    def hand_over(self) -> list[Sample]:
        """To the other root; they have run for a while after it."""
        if self._ready:
            self._pool.get_ready(self._names)
        done = self._pool.hand_over(self._names)
        samples = [
            Sample(self.name, 0, self._pool.judge(result, phases), tuple(phases)) for result, phases in done
        ]
        began = min(phase.start_ns for _, phases in done for phase in phases)
        samples[-1].values["all_ns"] = max(result.resumed_ns for result, _ in done) - began
        return samples

    @property
    def where(self) -> str:
        """The root they are in."""
        return self._pool.where(self._names[0])

    def rest(self) -> None:
        """They take no CPU until `wake`."""
        self._pool.rest(self._names)

    def close(self) -> None:
        self._pool.close()
