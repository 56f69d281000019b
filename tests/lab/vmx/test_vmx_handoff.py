# SPDX-License-Identifier: GPL-2.0-or-later
"""A KVM guest goes from one root to the other and back on an Intel machine: agents, QEMU and an arena, no
network but that between the roots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from intel import STEP_S, Root
from vmx_machines import Machines

from multiroot.lab.vmx import FASTER

pytestmark = pytest.mark.timeout(7200)

UP = r"multiroot: mark devices [\d.]+"
PROMPT = r"^[^\n]*# "
# What takes seconds in the other lab takes minutes of the emulator's time.
BOOT_S, AGENT_S, HANDOFF_S = 900.0, 1200.0, 2400.0
CPUS, NEW_CPUS = 4, "2-3"
# With page table isolation the guest's kernel faults in its own fault handler, as soon as it runs programs.
VM = "--memory 128M --machine microvm --cpu host --append mitigations=off"
PATIENT = "export MULTIROOT_DOWNTIME_LIMIT=30000 MULTIROOT_JOIN_TIMEOUT=480"
TICKS = """\
from multiroot.rpc import client
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.ticks import continuity
def ticks(root, count):
    with client.connect("unix:" + str(client.AGENT_SOCKET), root=root) as channel:
        stub = vm_pb2_grpc.VmServiceStub(channel)
        asked = vm_pb2.GetTicksRequest(name="web", wait_count=count)
        return ticks_from_proto(stub.GetTicks(asked, timeout=600))
"""
# The guest has ticked for a while in the old root; and in the new one, with none lost on the way. One of
# 64 ticks tells which boot it is.
BOOTED = 'print("ticks: %d" % len(ticks("old", 70).ticks))'
CAME = """\
found = continuity(ticks("old", 0).then(ticks("new", 70)).ticks)
print("ticks: unbroken" if found and found.unbroken else f"ticks: {found}")
"""
GOES_ON = """\
before = len(ticks("old", 0).ticks)
print("ticks: %d" % (len(ticks("old", before + 10).ticks) - before))
"""


@pytest.fixture(scope="module")
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    factory = Machines(whole=True)
    yield factory
    factory.close(keep_logs=bool(request.session.testsfailed))


def whole_root(root: Root) -> Root:
    """A root with an agent that answers, and a plain shell on its console that no kernel message disturbs."""
    root.wait(UP, BOOT_S)
    root.wait(PROMPT)
    plain_shell(root)
    root.run("busybox dmesg -n 1")
    # Looking costs little; a command of ours would keep the agent from starting.
    root.run("until [ -S /run/multiroot/agent.sock ]; do sleep 0.5; done", AGENT_S)
    root.run(PATIENT)
    return root


def plain_shell(root: Root) -> None:
    """In place of the shell that edits lines. What is typed before it is there has no echo."""
    since = len(root.console.text())
    root.begin("exec sh -i")
    root.wait(r"[\r\n]# ", since=since)


def said(root: Root, line: str, seconds: float) -> str:
    """Output of a command of ours, which must not fail. It draws on a terminal, so it has none."""
    return root.run(f"{line} >/tmp/said 2>&1; (code=$?; cat /tmp/said; exit $code)", seconds)


def ticks(root: Root, program: str) -> str:
    """What such a program says."""
    output = root.python(TICKS + program, AGENT_S)
    found = re.search(r"^ticks: (.*)$", output, re.MULTILINE)
    assert found, output
    return found[1].strip()


def test_a_guest_goes_there_and_back(machines: Machines) -> None:
    """Proves on Intel's VMX that a guest of QEMU and KVM in an arena goes to another root and back, with none
    of its ticks lost; that no root's kernel has anything to complain of, that the new root is released, and
    that nothing resets the machine."""
    with machines.lent(CPUS) as first:
        old = whole_root(first)
        machine = old.machine
        assert '"root": 1' in said(old, "multiroot root list --json", AGENT_S)
        said(old, f"multiroot vm run web {VM}", AGENT_S)
        assert int(ticks(old, BOOTED)) >= 70

        since = len(machine.com1.text())
        options = f"--cpus {NEW_CPUS} --append '{' '.join(FASTER)}'"
        said(old, f"multiroot root launch --kernel 6.12 {options}", HANDOFF_S)
        new = Root(machine, machine.com1, since)
        said(old, "multiroot handoff web", HANDOFF_S)
        assert ticks(old, CAME) == "unbroken"
        plain_shell(new)
        assert new.trouble(AGENT_S) == []

        said(old, "multiroot handoff web --to old", HANDOFF_S)
        assert int(ticks(old, GOES_ON)) >= 10
        said(old, "multiroot root release", STEP_S)
        assert old.line("cat /sys/devices/system/cpu/online", "[0-9,-]+") == f"0-{CPUS - 1}"
        assert old.trouble(AGENT_S) == []
        machine.end()
        assert machine.resets() == []
    machines.discard()
