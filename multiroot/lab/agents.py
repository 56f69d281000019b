# SPDX-License-Identifier: GPL-2.0-or-later
"""The agents of a lab's two roots as a program on the workstation uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from multiroot.clocks import Difference, difference
from multiroot.handoff.terms import DOWNTIME_MOST_MS
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase
from multiroot.roles import OTHER
from multiroot.rpc import client
from multiroot.rpc.progress import ended, follow
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2 as coordinator
from multiroot.rpc.v1 import coordinator_pb2_grpc, root_pb2, root_pb2_grpc, vm_pb2, vm_pb2_grpc

CALL_TIMEOUT_S = 60.0  # for calls that only ask
GUEST_TIMEOUT_S = 240.0  # for what waits for a guest under nested emulation


class Agents:
    """Channels to both roots, "old" and "new"; the second need not be there yet."""

    def __init__(self, address: client.Address) -> None:
        self._stack = ExitStack()
        self._channels = {
            root: self._stack.enter_context(client.connect(address, root=root)) for root in ("old", "new")
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def status(self, root: str = "old", *, wait: bool = False, slowness: float = 1.0) -> root_pb2.RootStatus:
        """What a root says of itself; with `wait`, as soon as its agent is there, which may take `slowness`
        times as long as usual.
        """
        with translated(f"the {root} root's agent"):
            return status(self._on(root), wait=wait, timeout_s=CALL_TIMEOUT_S * slowness)

    def run(self, definition: vm_pb2.VmDefinition) -> vm_pb2.Vm:
        """Start a VM in the old root."""
        stub = vm_pb2_grpc.VmServiceStub(self._on("old"))
        with translated("the old root's agent"):
            return stub.Run(vm_pb2.RunVmRequest(definition=definition), timeout=CALL_TIMEOUT_S)

    def stop(self, name: str, root: str) -> None:
        """End a VM."""
        stub = vm_pb2_grpc.VmServiceStub(self._on(root))
        with translated(f"the {root} root's agent"):
            stub.Remove(vm_pb2.RemoveVmRequest(name=name, force=True), timeout=CALL_TIMEOUT_S)

    def vm(self, name: str, root: str) -> vm_pb2.Vm:
        """A VM as a root knows it."""
        stub = vm_pb2_grpc.VmServiceStub(self._on(root))
        with translated(f"the {root} root's agent"):
            return stub.Get(vm_pb2.GetVmRequest(name=name), timeout=CALL_TIMEOUT_S)

    def ticks(self, name: str, root: str, count: int = 0, timeout_s: float = GUEST_TIMEOUT_S) -> vm_pb2.Ticks:
        """The guest's ticks that a root saw, once there are `count`."""
        with translated(f"the {root} root's agent"):
            return ticks(self._on(root), name, count, timeout_s)

    def console(self, name: str, root: str) -> str:
        """What a root has kept of a guest's output."""
        request = vm_pb2.ConsoleRequest(name=name, history=True, kept_only=True)
        with translated(f"the {root} root's agent"):
            stub = vm_pb2_grpc.VmServiceStub(self._on(root))
            answers = stub.Console(iter([request]), timeout=CALL_TIMEOUT_S)
            return b"".join(answer.output for answer in answers).decode(errors="replace")

    def launch(
        self, kernel: str, show: Callable[[Phase], None], append: str = ""
    ) -> tuple[coordinator.LaunchResult, list[Phase]]:
        """Bring a new root up; the result and the phases that ended."""
        phases: list[Phase] = []
        request = coordinator.LaunchRequest(kernel=kernel, append=append)
        return self.launch_as(request, show, ended(phases.append)), phases

    def launch_as(
        self, request: coordinator.LaunchRequest, *show: Callable[[Phase], None]
    ) -> coordinator.LaunchResult:
        """Bring a new root up as the request says."""
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._on("old"))
        with translated("the old root's agent"):
            return follow(stub.Launch(request), *show).launched

    def update_until_handover(self, kernel: str, show: Callable[[Phase], None]) -> list[Phase]:
        """An update as far as that every VM is in the new root, after the canary; all of its phases."""
        phases: list[Phase] = []
        request = coordinator.UpdateRequest(
            launch=coordinator.LaunchRequest(kernel=kernel),
            until=PhaseName.HANDOVER,
            terms=coordinator.HandoffTerms(downtime_limit_ms=DOWNTIME_MOST_MS),
        )
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._on("old"))
        with translated("the old root's agent"):
            follow(stub.Update(request), show, ended(phases.append))
        return phases

    def release(self, show: Callable[[Phase], None]) -> None:
        """End the new root."""
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._on("old"))
        with translated("the old root's agent"):
            follow(stub.Release(coordinator.ReleaseRequest()), show)

    def hand_over(
        self, names: Sequence[str], to: str, show: Callable[[Phase], None], group: int = 1
    ) -> list[tuple[coordinator.HandoffResult, list[Phase]]]:
        """Hand VMs to the root `to`, from the other one, `group` at a time, however long that takes.

        Returns for each, as they arrived, the result and its phases.
        """
        phases: list[Phase] = []
        results: list[coordinator.HandoffResult] = []
        terms = coordinator.HandoffTerms(downtime_limit_ms=DOWNTIME_MOST_MS, group=group)
        giver = OTHER[to]
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._on(giver))
        with translated(f"the {giver} root's agent"):
            request = coordinator.HandoffRequest(names=names, to=to, terms=terms)
            follow(stub.Handoff(request), show, ended(phases.append), handed=results.append)
        return [(each, [phase for phase in phases if phase.attrs.get("vm") == each.name]) for each in results]

    def get_ready(self, names: Sequence[str], to: str, show: Callable[[Phase], None]) -> None:
        """Have the root `to` start the VMMs of VMs that are in the other one, before they are handed over."""
        giver = OTHER[to]
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(self._on(giver))
        with translated(f"the {giver} root's agent"):
            follow(stub.PrepareHandoff(coordinator.PrepareHandoffRequest(names=names, to=to)), show)

    def learned(self, root: str) -> None:
        """Wait until an agent answers all calls; one that has just come up begins with a few."""
        stub: Any = health_pb2_grpc.HealthStub(self._on(root))
        with translated(f"the {root} root's agent"):
            stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S, wait_for_ready=True)

    def clock_offset(self) -> int:
        """The old root's TSC clock minus this workstation's monotonic clock, ns."""
        return self.clock("old").ns

    def clock(self, root: str) -> Difference:
        """A root's TSC clock minus this workstation's monotonic clock."""
        return difference(lambda: self.status(root).now_ns, time.monotonic_ns, tries=8)

    def _on(self, root: str) -> grpc.Channel:
        return self._channels[root]


def status(
    channel: grpc.Channel, *, wait: bool = False, timeout_s: float = CALL_TIMEOUT_S
) -> root_pb2.RootStatus:
    """What the root behind `channel` says of itself; with `wait`, as soon as its agent is there."""
    stub: Callable[..., root_pb2.RootStatus] = root_pb2_grpc.RootServiceStub(channel).GetStatus
    return stub(root_pb2.GetStatusRequest(), timeout=timeout_s, wait_for_ready=wait)


def ticks(channel: grpc.Channel, name: str, count: int, timeout_s: float) -> vm_pb2.Ticks:
    """The ticks of guest `name` that the root behind `channel` saw, once there are `count` of them."""
    request = vm_pb2.GetTicksRequest(name=name, wait_count=count)
    return vm_pb2_grpc.VmServiceStub(channel).GetTicks(request, timeout=timeout_s)
