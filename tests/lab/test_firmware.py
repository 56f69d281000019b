# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that a firmware starts, from the old root to the new one and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.rpc import client
from multiroot.rpc.v1 import vm_pb2, vm_pb2_grpc
from multiroot.vm import ticks
from multiroot.vm.messages import ticks_from_proto

BOOT_S = 900.0  # an emulated CPU on a busy workstation
ANSWER_S = 300.0
ENOUGH = 150  # ticks, with two reports among them
LOGIN = b"login: "

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]


def at_console(cli: Cli, root: str, typed: bytes, wanted: bytes, seconds: float) -> bytes:
    """What the guest "deb" says in a root from now on, up to what is wanted, once that is typed."""
    asked = [vm_pb2.ConsoleRequest(name="deb", history=not typed), vm_pb2.ConsoleRequest(input=typed)]
    said = b""
    with ExitStack() as stack:
        channel = stack.enter_context(client.connect(cli.lab.agent_address, root=root))
        call = vm_pb2_grpc.VmServiceStub(channel).Console(iter(asked), timeout=seconds)
        stack.callback(call.cancel)
        for answer in call:
            said += answer.output
            if wanted in said:
                return said
    raise AssertionError(f"no {wanted!r}: {said[-2000:]!r}")


@pytest.fixture
def debian(labs_factory: Labs) -> Iterator[Cli]:
    lab = labs_factory.fresh(vms=4, disks=("debian-13",))
    yield Cli(lab)
    labs_factory.discard(lab)


def test_debian_by_uefi_goes_there_and_back(debian: Cli) -> None:
    """Proves that a disk with GRUB boots by UEFI, that the guest goes on in both roots, and that UEFI boots
    it again in the other root, by the variables that it wrote in the first.
    """
    cli = debian
    (found,) = [each for each in cli.lab_data("disk", "list") if not each["read_only"]]
    cli.ok("vm", "run", "deb", "--memory", "512M", "--firmware", "ovmf", "--disk", found["source"])
    at_console(cli, "old", b"", LOGIN, BOOT_S)
    cli.ok("root", "launch", "--kernel", "7.x")
    cli.ok("handoff", "deb")
    assert LOGIN in at_console(cli, "new", b"\n", LOGIN, ANSWER_S)
    cli.ok("vm", "reset", "deb")
    assert b"Boot0" in at_console(cli, "new", b"\n", LOGIN, BOOT_S)
    cli.ok("handoff", "deb", "--to", "old")
    at_console(cli, "old", b"\n", LOGIN, ANSWER_S)
    cli.ok("vm", "stop", "deb")
    assert cli.lab.state.resets() == 0


def read_ticks(cli: Cli, root: str, count: int) -> ticks.Stretch:
    """What the guest "vm0" has said in its last stay in a root, once there are so many ticks."""
    with client.connect(cli.lab.agent_address, root=root) as channel:
        request = vm_pb2.GetTicksRequest(name="vm0", wait_count=count)
        return ticks_from_proto(vm_pb2_grpc.VmServiceStub(channel).GetTicks(request, timeout=BOOT_S))


@pytest.mark.parametrize(("firmware", "memory"), [("seabios", "128M"), ("ovmf", "160M")])
def test_a_guest_that_a_firmware_starts_misses_no_tick(
    labs_factory: Labs, firmware: str, memory: str
) -> None:
    cli = Cli(labs_factory.get())
    cli.ok("vm", "run", "vm0", "--memory", memory, "--firmware", firmware)
    cli.ok("root", "launch", "--kernel", "6.12")
    seen = ticks.Stretch()
    for root, to in (("old", "new"), ("new", "old"), ("old", "")):
        read_ticks(cli, root, ENOUGH)
        if to:
            cli.ok("handoff", "vm0", "--to", to)
        seen = seen.then(read_ticks(cli, root, 0))
    judged = ticks.continuity(seen.ticks)
    assert judged
    assert judged.unbroken
    assert judged.checked_bytes > 0
    cli.ok("vm", "stop", "vm0")
    cli.ok("vm", "rm", "vm0")
    cli.ok("root", "release")
