# SPDX-License-Identifier: GPL-2.0-or-later
"""The old root retires, the new one has the whole machine, a third can follow: real kernels, a real VM."""

from __future__ import annotations

import pytest
from echo import Echo
from lab_factory import Labs

from multiroot.coordinator.join import JOIN_TIMEOUT_S
from multiroot.demo import guests
from multiroot.demo.generations import Generation, Generations
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab import boot
from multiroot.lab.lab import Lab, kernel_name
from multiroot.net.addresses import guest_address
from multiroot.rpc import client
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc
from multiroot.units import MIB


def update(lab: Lab, kernel: str, until: str) -> coordinator_pb2.UpdateResult:
    timeout = round(JOIN_TIMEOUT_S * lab.state.machine.slowness)
    launch = coordinator_pb2.LaunchRequest(kernel=kernel, join_timeout_s=timeout)
    with client.connect(target=lab.agent_address) as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        request = coordinator_pb2.UpdateRequest(launch=launch, until=until, terms=to_proto(PATIENT))
        *_, last = stub.Update(request)
    return last.updated


def abort(lab: Lab) -> None:
    with client.connect(target=lab.agent_address) as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        list(stub.AbortUpdate(coordinator_pb2.AbortUpdateRequest()))


def works(lab: Lab) -> str:
    """Every CPU of the root did something; its log has no complaint."""
    online = lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout.strip()
    for cpu in range(4):
        assert lab.run(["taskset", "-c", str(cpu), "nproc"]).stdout == "1\n"
    log = lab.run(["dmesg"]).stdout.splitlines()
    assert not [line for line in log if any(word in line for word in ("WARNING:", "BUG:", "Oops"))]
    return online


@pytest.mark.timeout(3600)  # two updates; 480 s were seen beside another lab on two cores, KASAN is slower
@pytest.mark.parametrize("kernels", [("6.12", "6.1", "7.x")], ids="-".join)
def test_three_roots_follow_each_other_and_the_last_one_ends_the_machine(
    labs_factory: Labs, kernels: tuple[str, ...]
) -> None:
    """Proves that a VM lives through two updates unharmed while each root gives way to the next: all CPUs,
    the boot CPU among them, the PCI devices and the memory pass on, nothing writes to what was left, nothing
    leaks, nothing resets the machine; that a TCP connection from the workstation to the guest lives through
    all of it; that an update can be taken back before commit, VM and all; and that
    the last root really powers the machine off."""
    first, *later = map(labs_factory.kernel, kernels)
    lab = labs_factory.fresh(kernel=first, vms=1)
    generations = Generations(lab, 128 * MIB, labs_factory.phases)
    seen: list[Generation] = []

    with Echo(lab.state, guest_address(1), guests.ECHO_PORT) as echo:
        generations.run([*map(kernel_name, later)], seen.append)
        echo.go_on()
    assert [generation.inventory.root for generation in seen] == [2, 3]
    assert all(generation.inventory.devices for generation in seen)
    assert works(lab) == "0-3"
    assert lab.state.resets() == 0

    result = update(lab, kernel_name(first), "handover")
    assert result.state == "handed-over"
    abort(lab)
    assert works(lab) == "0-3"
    with client.connect(target=lab.agent_address) as channel:
        state = coordinator_pb2_grpc.CoordinatorServiceStub(channel).GetState(
            coordinator_pb2.GetStateRequest()
        )
    assert (state.root, state.state) == (3, "idle")

    lab.run(["sh", "-c", "(sleep 1; busybox poweroff -f) >/dev/null 2>&1 &"])
    boot.wait_end(lab.state, 60 * lab.state.machine.slowness)
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
