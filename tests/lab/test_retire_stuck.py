# SPDX-License-Identifier: GPL-2.0-or-later
"""A retire that gets stuck half-way changes nothing for good; devices go one by one, a disk among them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lab_factory import Labs

from multiroot.demo import guests
from multiroot.errors import MultirootError, PeerLostError
from multiroot.handoff.terms import PATIENT, to_proto
from multiroot.lab.lab import Lab
from multiroot.lab.machine import QMP_SOCKET, disk_file, disk_marker, disk_name
from multiroot.rpc import client, successor
from multiroot.rpc.v1 import (
    coordinator_pb2,
    coordinator_pb2_grpc,
    root_pb2,
    root_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)
from multiroot.units import KIB, MIB
from multiroot.vm.qemu.monitor import Monitor

DISK = 1  # number of the recipe's device
DISK_FUNCTION = "0000:01:00.0"
PIN_FUNCTION = "0000:02:00.0"
CARD_FUNCTION = "0000:00:01.0"
STUCK_S = 120.0


@contextmanager
def slow_disk(lab: Lab) -> Iterator[None]:
    """The disk does one request more and then, at a byte a second, nothing that a test lives to see."""

    def throttle(rate: int) -> None:
        limits = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(lab.state.machine.state / QMP_SOCKET))
            monitor = Monitor(sock)
            monitor.greet()
            monitor.execute("block_set_io_throttle", device=disk_name(DISK), bps=rate, **limits)

    throttle(1)
    try:
        yield
    finally:
        throttle(0)


def wait_for(lab: Lab, condition: str) -> None:
    """Until a shell command in the first root succeeds."""
    lab.run(["sh", "-c", f"until {condition}; do busybox usleep 100000; done"], timeout=STUCK_S)


def state_of(lab: Lab) -> coordinator_pb2.CoordinatorState:
    with client.connect(target=lab.agent_address) as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        return stub.GetState(coordinator_pb2.GetStateRequest(), timeout=60)


def update(lab: Lab, *devices: str) -> None:
    request = coordinator_pb2.UpdateRequest(
        launch=coordinator_pb2.LaunchRequest(kernel="6.1"),
        devices=devices,
        verify=True,
        no_canary=True,
        terms=to_proto(PATIENT),
    )
    with client.connect(target=lab.agent_address) as channel:
        *_, last = coordinator_pb2_grpc.CoordinatorServiceStub(channel).Update(request)
    assert last.updated.retiring


def refusal(lab: Lab) -> str:
    """Update, and what the old root says when it goes on after all."""
    update(lab)
    with pytest.raises(MultirootError) as said:
        follow(lab)
    eventually(lambda: state_of(lab).state == "committed")
    eventually(lambda: runs_commands(lab))
    return said.value.message


def eventually(condition: Callable[[], bool]) -> None:
    """Services come back after a refusal, and nobody tells when they have."""
    until = time.monotonic() + STUCK_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


def runs_commands(lab: Lab) -> bool:
    try:
        return not lab.run(["true"]).returncode
    except PeerLostError:
        return False


def follow(lab: Lab) -> None:
    """Until root 2 has everything. MultirootError when root 1 goes on."""
    successor.wait(
        lab.agent_address,
        1,
        lambda _: None,
        until=successor.COMPLETE,
        timeout_s=400,
        ended=lab.state.ending,
    )


def vm_goes_on(lab: Lab, root: str | None) -> None:
    with client.connect(lab.agent_address, root=root) as channel:
        stub = vm_pb2_grpc.VmServiceStub(channel)
        seen = len(stub.GetTicks(vm_pb2.GetTicksRequest(name="vm1"), timeout=60).counter)
        stub.GetTicks(vm_pb2.GetTicksRequest(name="vm1", wait_count=seen + 20), timeout=180)


def functions(lab: Lab) -> set[str]:
    return set(lab.run(["ls", "/sys/bus/pci/devices"]).stdout.split())


def test_a_stuck_retire_leaves_the_machine_usable_and_devices_go_one_by_one(labs_factory: Labs) -> None:
    """Proves that a process that can't be killed, and then a driver that does not let go, end a retire with
    their names, the old root and the VM going on; that the update completes when they do; that the new root
    has only the PCI function it was told to adopt, and the disk behind its bridge when it is told of that
    one; that what is on the disk is there, and what it writes arrives; that a function with interrupts by pin
    is listed before anything starts."""
    lab = labs_factory.fresh(machine="disk", kernel="6.12")
    with client.connect(lab.agent_address, root="old") as channel:
        root_pb2_grpc.RootServiceStub(channel).GetStatus(
            root_pb2.GetStatusRequest(), timeout=STUCK_S, wait_for_ready=True
        )
        guests.boot(channel, guests.definitions(1, 128 * MIB), 20, labs_factory.phases)
    plan = lab.run(["multiroot", "plan", "show", "--json"]).stdout
    assert [each["function"] for each in json.loads(plan)["stays"]] == [PIN_FUNCTION]

    with slow_disk(lab):
        # On a CPU that stays: no kernel takes one offline as long as a request from there is under way.
        reading = "taskset -c 0 dd if=/dev/vda of=/dev/null iflag=direct bs=4k count=64"
        lab.run(["sh", "-c", f"{reading} >/dev/null 2>&1 &"])
        wait_for(lab, "grep -q '^State:.D' /proc/$(pidof dd)/status")
        assert "these processes do not end: dd (" in refusal(lab)
        assert lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout == "0-1\n"
        vm_goes_on(lab, "new")
    wait_for(lab, "! pidof dd")

    # The loop device keeps the disk open, so that what is dirty stays so when dd has ended.
    lab.run(["sh", "-c", "modprobe loop && busybox losetup /dev/loop0 /dev/vda"])
    with slow_disk(lab):
        lab.run(["sh", "-c", "for at in 1 5 9; do dd if=/dev/zero of=/dev/vda bs=1M seek=$at count=1; done"])
        assert f"driver virtio-pci does not let go of {DISK_FUNCTION}" in refusal(lab)
        vm_goes_on(lab, "new")
    # The old root goes on, and so its driver gets the disk back when it has let go of it at last.
    wait_for(lab, f"[ -e /sys/bus/pci/devices/{DISK_FUNCTION}/driver ]")

    update(lab, CARD_FUNCTION)
    follow(lab)
    vm_goes_on(lab, None)
    assert functions(lab) == {CARD_FUNCTION}
    lab.run(["multiroot", "root", "adopt", "--device", DISK_FUNCTION])
    wait_for(lab, "[ -b /dev/vda ]")
    assert {CARD_FUNCTION, DISK_FUNCTION} < functions(lab)
    assert PIN_FUNCTION not in functions(lab)

    marker = disk_marker(DISK)
    read = lab.run(["dd", "if=/dev/vda", f"bs={len(marker)}", "count=1", "status=none"]).stdout
    assert read.encode() == marker
    lab.run(["sh", "-c", "echo from root 2 | dd of=/dev/vda bs=64k seek=16 conv=fsync,sync"])
    with disk_file(lab.state.machine, DISK).open("rb") as disk:
        disk.seek(16 * 64 * KIB)
        assert disk.readline() == b"from root 2\n"

    lab.run(["multiroot", "root", "adopt"])
    wait_for(lab, f"[ -e /sys/bus/pci/devices/{PIN_FUNCTION} ]")
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
