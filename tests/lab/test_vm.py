# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs under KVM in a root, and handoffs between two agents of one kernel. Across kernels: test_demo.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from multiroot.errors import BadRequestError, ConflictError
from multiroot.lab.lab import Lab
from multiroot.net import namespace
from multiroot.rpc.client import connect
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.units import GIB, MIB
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.ticks import continuity

TWO_ROOTS = (Path(__file__).parent / "two_roots.py").read_text()


@pytest.fixture
def agent(lab: Lab) -> Iterator[vm_pb2_grpc.VmServiceStub]:
    """The old root's agent; VMs that a test leaves are stopped."""
    channel = connect(lab.agent_address)
    grpc.channel_ready_future(channel).result(timeout=60)
    stub = vm_pb2_grpc.VmServiceStub(channel)
    yield stub
    for vm in stub.List(vm_pb2.ListVmsRequest()).vms:
        stub.Remove(vm_pb2.RemoveVmRequest(name=vm.definition.name, force=True))
    channel.close()


def run(agent: vm_pb2_grpc.VmServiceStub, **fields: object) -> vm_pb2.Vm:
    definition = vm_pb2.VmDefinition(**{"name": "vm0", "ram_bytes": 128 * MIB, **fields})  # type: ignore[arg-type]
    with translated("the agent"):
        return agent.Run(vm_pb2.RunVmRequest(definition=definition))


def test_a_guest_runs_under_kvm_with_its_ram_in_the_arena(lab: Lab, agent: vm_pb2_grpc.VmServiceStub) -> None:
    vm = run(agent, cards=[vm_pb2.Card(address="10.77.1.1/16")], append="ticker.region=16")
    assert (vm.state, vm.owner, vm.extents[0].size) == ("running", 1, 128 * MIB)
    ticks = agent.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=130), timeout=300)
    seen = continuity(ticks_from_proto(ticks).ticks)
    assert seen
    assert seen.unbroken
    assert seen.checked_bytes > 0

    maps = lab.run(["cat", f"/proc/{vm.pid}/maps"]).stdout
    assert "/dev/dax" in maps
    assert "/dev/kvm" in lab.run(["sh", "-c", f"ls -l /proc/{vm.pid}/fd"]).stdout
    shown = json.loads(lab.run(["multiroot", "arena", "show", "--json"]).stdout)
    assert [(each["name"], each["root"]) for each in shown["extents"]] == [(".home-vm0", 1), ("vm0", 1)]

    knock = (
        "import socket\n"
        "try: socket.create_connection(('10.77.1.1', 9), timeout=20)\n"
        "except ConnectionRefusedError: print('refused')\n"
    )
    assert lab.run([*namespace.EXEC, "python3", "-c", knock]).stdout == "refused\n"
    assert lab.run(["python3", "-c", knock]).stdout == "", "there is no way from a root to its guests"

    agent.Remove(vm_pb2.RemoveVmRequest(name="vm0", force=True))
    assert json.loads(lab.run(["multiroot", "arena", "show", "--json"]).stdout)["extents"] == []
    assert "mrtap" not in lab.run([*namespace.EXEC, "ls", "/sys/class/net"]).stdout


@pytest.mark.parametrize(
    ("machine", "firmware"),
    [("q35", "direct"), ("microvm", "direct"), ("q35", "seabios"), ("q35", "ovmf")],
)
def test_a_guest_comes_up_in_the_least_memory_that_it_may_have(
    agent: vm_pb2_grpc.VmServiceStub, machine: str, firmware: str
) -> None:
    """Proves that what is refused says the least memory, and that the guest boots and ticks in that much."""
    with pytest.raises(BadRequestError, match="does not come up in 32 MiB") as refused:
        run(agent, machine=machine, firmware=firmware, ram_bytes=32 * MIB)
    said = re.search(r"at least (\d+) MiB", refused.value.hint)
    assert said, refused.value.hint
    least = int(said[1]) * MIB
    with pytest.raises(BadRequestError, match="does not come up in"):
        run(agent, machine=machine, firmware=firmware, ram_bytes=least - 2 * MIB)
    run(agent, machine=machine, firmware=firmware, ram_bytes=least)
    agent.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=20), timeout=300)


def test_refusals(lab: Lab, agent: vm_pb2_grpc.VmServiceStub) -> None:
    run(agent)
    with pytest.raises(ConflictError, match="already a VM vm0"):
        run(agent)
    with pytest.raises(BadRequestError, match="1 GiB of memory is more than the arena has"):
        run(agent, name="vm1", ram_bytes=GIB)
    with pytest.raises(ConflictError, match="no free extent of 480 MiB"):
        run(agent, name="vm1", ram_bytes=480 * MIB)
    with pytest.raises(BadRequestError, match="no VM named 'vm1'"), translated("the agent"):
        agent.Get(vm_pb2.GetVmRequest(name="vm1"))
    assert [vm.definition.name for vm in agent.List(vm_pb2.ListVmsRequest()).vms] == ["vm0"]
    broken = lab.run(["sh", "-c", "truncate -s 8M /tmp/none; multiroot arena show --device /tmp/none"])
    assert broken.returncode == 2
    assert "no valid arena on /tmp/none: copy 1: no superblock" in broken.stderr


EXTENT = """
import sys
from multiroot.arena.arena import Arena
from multiroot.arena.backing import find_device
arena = Arena(find_device().node, 1)
if sys.argv[1] == "allocate":
    arena.allocate(".test-tables", 2 << 20, 0)
else:
    arena.free(".test-tables", arena.find(".test-tables").owner)
"""


def test_a_vm_has_the_cpu_that_it_is_said_to_have(lab: Lab, agent: vm_pb2_grpc.VmServiceStub) -> None:
    """Proves that "frozen" is written out when a VM starts, that the same words give the same CPU again, that
    a model that QEMU does not have and features that KVM does not have are refused by name, and that nothing
    is left of a VM that was refused.
    """
    written_out = run(agent, cpu="frozen").definition.cpu
    assert written_out.startswith("base,")
    assert ",kvmclock=on," in written_out
    again = run(agent, name="vm1", cpu=written_out)
    assert again.definition.cpu == written_out
    agent.Remove(vm_pb2.RemoveVmRequest(name="vm1", force=True))
    with pytest.raises(BadRequestError, match="no CPU 'nosuch' with these features"):
        run(agent, name="vm1", cpu="nosuch")
    # No lab has it: its emulated CPUs are AMD's, or it runs in Bochs, where there are no VMs.
    with pytest.raises(ConflictError, match=r"cannot give vm1 its CPU, it lacks: vmx, hle "):
        run(agent, name="vm1", cpu="base,hle=on,lm=on,vmx=on")
    left = agent.List(vm_pb2.ListVmsRequest()).vms
    assert [vm.definition.name for vm in left] == ["vm0"]


def test_what_is_no_vm_is_never_taken_for_one(lab: Lab, agent: vm_pb2_grpc.VmServiceStub) -> None:
    """Proves that an extent of multiroot's own, as IOMMU tables need one, counts as a VM nowhere."""
    run(agent)
    assert lab.run(["python3", "-c", EXTENT, "allocate"]).returncode == 0
    try:
        (root,) = json.loads(lab.run(["multiroot", "root", "list", "--json"]).stdout)
        assert root["vms"] == ["vm0"]
        assert [vm.definition.name for vm in agent.List(vm_pb2.ListVmsRequest()).vms] == ["vm0"]
        shown = json.loads(lab.run(["multiroot", "arena", "show", "--json"]).stdout)["extents"]
        assert {extent["name"]: extent["kind"] for extent in shown} == {
            ".home-vm0": "home-vm0",
            "vm0": "vm",
            ".test-tables": "test-tables",
        }
        with pytest.raises(BadRequestError, match=r"can.t be .\.test-tables."), translated("the agent"):
            agent.Remove(vm_pb2.RemoveVmRequest(name=".test-tables", force=True))
    finally:
        assert lab.run(["python3", "-c", EXTENT, "free"]).returncode == 0


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("kill -9 {pid}", "not because memory ran out"),
        (
            "echo 1000 >/proc/{pid}/oom_score_adj; echo f >/proc/sysrq-trigger",
            "the kernel killed it because memory ran out: Out of memory: Killed process {pid} (",
        ),
    ],
)
def test_a_vm_whose_qemu_was_killed_says_by_what(
    lab: Lab, agent: vm_pb2_grpc.VmServiceStub, command: str, says: str
) -> None:
    """Proves that the signal is named, and whether the kernel's OOM killer sent it, by the kernel's word."""
    pid = run(agent).pid
    lab.run(["sh", "-c", command.format(pid=pid)])
    with pytest.raises(ConflictError, match="vm0 is failed"), translated("the agent"):
        agent.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=1 << 40), timeout=60)
    seen = agent.Get(vm_pb2.GetVmRequest(name="vm0"))
    assert seen.error.startswith("QEMU was killed by SIGKILL; ")
    assert says.format(pid=pid) in seen.error
    shown = json.loads(lab.run(["multiroot", "vm", "list", "--json"]).stdout)
    assert [(vm["name"], vm["state"]) for vm in shown] == [("vm0", "failed")]


# The one way by which jump labels are changed at run time (arch/x86/kernel/jump_label.c).
CHANGES = """
set -e
cd /sys/kernel/tracing
if [ $1 = begin ]; then
	echo 'p:changed arch_jump_label_transform_apply' >kprobe_events
	echo >trace
	echo stacktrace >events/kprobes/changed/trigger
	echo 1 >events/kprobes/changed/enable
else
	echo 0 >events/kprobes/changed/enable
	echo '!stacktrace' >events/kprobes/changed/trigger
	cat trace
	echo >kprobe_events
fi
"""


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_the_kernel_does_not_change_its_code_while_vms_come_and_go(
    lab: Lab, agent: vm_pb2_grpc.VmServiceStub, machine: str
) -> None:
    """Proves that KVM's static keys stay as they are: an emulator may go on with what was there before."""
    assert lab.run(["sh", "-c", CHANGES, "sh", "begin"]).returncode == 0
    try:
        run(agent, machine=machine)
        agent.GetTicks(vm_pb2.GetTicksRequest(name="vm0", wait_count=20), timeout=300)
        agent.Remove(vm_pb2.RemoveVmRequest(name="vm0", force=True))
    finally:
        trace = lab.run(["sh", "-c", CHANGES, "sh", "end"])
    assert trace.returncode == 0, trace.stderr
    assert "changed:" not in trace.stdout, trace.stdout


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_a_real_guest_survives_a_failed_handoff_and_a_good_one(lab: Lab, machine: str) -> None:
    done = lab.run(["python3", "-c", TWO_ROOTS, "drive", machine], timeout=400)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert "ordered by the test" in outcome["refused"]
    assert (outcome["registers"] > 0) == (machine == "q35")
    assert outcome["unbroken"], outcome["continuity"]
    assert outcome["epochs"] == 2  # raised once by taking it back, once by the handoff
    assert outcome["ram_bytes_copied"] == 0
    assert 0 < outcome["device_state_bytes"] < MIB
    assert outcome["answer"] == "ConnectionRefusedError"
    assert outcome["left"] == []
