# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM takes its own device along to another kernel; the device works on and nobody tells it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_driver import Cli
from kernel_trouble import trouble
from lab_factory import Labs

from multiroot.demo import device, guests
from multiroot.errors import PeerLostError
from multiroot.lab import recipes
from multiroot.lab.machine import card_sockets, disk_file
from multiroot.lab.wire import Sender
from multiroot.rpc import client
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import coordinator_pb2, coordinator_pb2_grpc
from multiroot.units import MIB
from multiroot.verdict.allow import Allowed

EDU, DISK, VIRTIO = "02:00.0", "03:00.0", "04:00.0"
FUNCTION = "01:10.0"  # the card's first virtual function
# There and back; MULTIROOT_ROUNDS=5 makes it ten handoffs, which takes some minutes more.
ROUNDS = int(os.environ.get("MULTIROOT_ROUNDS", "1"))
THREAD_ROUNDS, FUZZ_ROUNDS, SEED, FUZZ_S = 200, 1000, 20261129, 900.0
LATE = Allowed(
    re.compile(r"\b__iommu_probe_device\b"),
    "from 6.15 on it warns of each device whose driver was there before our IOMMU (docs/device-handoff.md)",
)
NO_REMAPPING = recipes.machine("no-remapping", {}).iommu
Channels = dict[str, grpc.Channel]
takes_longer = pytest.mark.skipif(ROUNDS < 2, reason="takes two minutes more; MULTIROOT_ROUNDS=2 has it, too")


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A machine with an IOMMU, two cards and a disk, and no VM yet. Its roots' kernel is that of --kernel, or
    else the lab's of which the guests are made."""
    kernel = labs_factory.kernel(device.KERNEL)
    guests_of = (device.KERNEL,) if kernel != device.KERNEL else ()
    lab = labs_factory.fresh(kernel=kernel, kernels=guests_of, machine=device.MACHINE, vms=3)
    yield Cli(lab)
    labs_factory.discard(lab)


def channels(stack: ExitStack, cli: Cli) -> Channels:
    address = cli.lab.agent_address
    return {name: stack.enter_context(client.connect(address, root=name)) for name in ("old", "new")}


@pytest.fixture(scope="module")
def roots(cli: Cli) -> Iterator[Channels]:
    """Channels to both roots; the new one need not be there yet."""
    with ExitStack() as stack:
        yield channels(stack, cli)


@pytest.fixture(scope="module")
def sender(cli: Cli) -> Iterator[Sender]:
    """Numbered frames for the card, from now on."""
    with Sender(card_sockets(cli.lab.state.machine, 1)[0]) as sender:
        yield sender


def frames_until(roots: Channels, root: str, name: str, above: int) -> bytes:
    """Output of a VM up to an account above that number, which must be whole and by nobody but the ticker."""
    output = device.output_until(roots[root], name, above, guests.BOOT_TIMEOUT)
    seen = device.parse(output)[-1]
    assert seen.last > above
    assert seen.unbroken, (root, seen)
    return output


def hand(cli: Cli, name: str, taker: str) -> None:
    """A handoff after which the device's DMA leads where it led before, and its interrupts are as before."""
    moved: Any = cli.data("handoff", name, "--to", taker)
    before, after = moved["device"]["before"], moved["device"]["after"]
    assert moved["device"]["same"] > 0
    assert all(before[key] == after[key] for key in ("did", "context", "leaves", "crc", "remapped"))
    assert (before["remapped"] > 0) == (cli.lab.state.machine.iommu != NO_REMAPPING)
    assert before["owner"] != after["owner"]


@pytest.mark.timeout(900)
@takes_longer
def test_without_interrupt_remapping_the_card_goes_the_same_way(labs_factory: Labs) -> None:
    """Proves that an IOMMU which does not remap interrupts will do: then the new root writes messages of its
    own into the card's table."""
    lab = labs_factory.fresh(kernel=device.KERNEL, machine="no-remapping", vms=1)
    cli = Cli(lab)
    with ExitStack() as stack:
        roots = channels(stack, cli)
        sender = stack.enter_context(Sender(card_sockets(lab.state.machine, 1)[0]))
        own = ("--device", device.CARD, "--append", device.APPEND)
        cli.ok("vm", "run", "owner", "--guest", device.GUEST, *own)
        frames_until(roots, "old", "owner", sender.sent)
        cli.ok("root", "launch", "--kernel", device.KERNEL)
        for taker in ("new", "old"):
            hand(cli, "owner", taker)
            output = frames_until(roots, taker, "owner", sender.sent + 50)
            assert device.foreign_lines(output) == 0, output[-2000:]
    labs_factory.discard(lab)


@pytest.mark.parametrize(
    ("code", "says", "address"),
    [
        (2, "not a PCI address", "nonsense"),
        (2, "no PCI device 09:00.0", "09:00.0"),
        (3, "shares its IOMMU group", "00:1f.2"),
        (3, "no MSI-X", EDU),
    ],
)
def test_devices_that_cannot_go_along_are_refused(cli: Cli, code: int, says: str, address: str) -> None:
    """Proves that such a VM is not started, with one line that says why."""
    cli.refused(code, says, "vm", "run", "other", "--device", address)


def test_dma_that_is_not_mapped_is_blocked(cli: Cli) -> None:
    """Proves that a device of VFIO reaches what was mapped for it, nothing else, and that we are told."""
    script = (Path(__file__).parent / "guest/edu_dma.py").read_text()
    done = cli.lab.run(["python3", "-c", script, f"0000:{EDU}"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "mapped": "through the IOMMU",
        "faults_before": 0,
        "faults": 1,
        "rid": 0x200,
        "address": 0x800000,
        "write": True,
    }


def rounds(cli: Cli, usual: int) -> int:
    """Of so many in a usual kernel, those in one that looks for bugs in itself."""
    return round(usual / cli.lab.state.machine.slowness)


def in_root(cli: Cli, name: str, address: str, *numbers: int) -> Any:
    """What a program of `guest` that uses a device prints, as data."""
    folder = Path(__file__).parent / "guest"
    beside = (folder / "vfio_device.py").read_text()
    put = 'mkdir -p /run/vfio && printf %s "$1" >/run/vfio/vfio_device.py'
    assert cli.lab.run(["sh", "-c", put, "sh", beside]).returncode == 0
    words = ["python3", "-c", (folder / name).read_text(), f"0000:{address}", *map(str, numbers)]
    done = cli.lab.run(["env", "PYTHONPATH=/run/vfio", *words], timeout=FUZZ_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_threads_on_a_devices_file_do_the_kernel_no_harm(cli: Cli) -> None:
    """Proves that a stream of the migration takes no more than it has room for from any number of writers,
    that asking twice for the end of one that is not whole is refused twice, and that interrupts may come and
    go while the device is stopped and goes on. Without KASAN a fault shows as an oops, if at all."""
    turns = rounds(cli, THREAD_ROUNDS)
    seen = in_root(cli, "vfio_threads.py", VIRTIO, turns)
    assert 0 < seen["most"] <= 16
    assert seen["turns"] == [turns] * 4
    assert trouble(cli.lab, allow=[LATE]) == []


def test_bad_input_by_many_threads_does_the_kernel_no_harm(cli: Cli) -> None:
    """Proves that no ioctl of a device's file, and none of our modules' devices without their claim, does
    harm whatever it is given, several at once; and that interrupts and a stop of the device work afterwards.
    """
    answers = in_root(cli, "vfio_fuzz.py", VIRTIO, rounds(cli, FUZZ_ROUNDS), SEED)
    assert set(answers["ours"]) <= {"EPERM", "ENOTTY", "ENOENT", "EINVAL", "ENODEV", "ok", "left out"}
    assert all(answers[kind].get("ok") for kind in ("any_ioctl", "interrupts", "migrate", "feature"))
    assert trouble(cli.lab, allow=[LATE]) == []


def inject(cli: Cli, address: int) -> None:
    """Have the new root find another translation than its own of the page at this address."""
    where = "/sys/module/multiroot_iommu/parameters/inject"
    done = cli.lab.run(["sh", "-c", f"modprobe multiroot_iommu && echo {address} > {where}"], root="new")
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(1500)
def test_the_card_works_on_through_handoffs(cli: Cli, roots: Channels, sender: Sender) -> None:
    """Proves that of a stream of numbered frames none is lost and none comes twice while the VM goes to
    another kernel and back, several times; that interrupts come in the root that runs it, that the IOMMU
    translates the same before and after, that nobody resets the card (by the emulator's own account), and
    that the guest's driver says nothing. Before that, that a translation which differs ends a handoff, while
    the guest still runs or while it stands still, and VM and card go on where they were.
    """
    cli.ok("vm", "run", "owner", "--device", device.CARD, "--guest", device.GUEST, "--append", device.APPEND)
    cli.refused(3, "owned by VM owner", "vm", "run", "second", "--device", device.CARD)
    before = device.output_until(roots["old"], "owner", sender.sent, guests.BOOT_TIMEOUT)
    resets = cli.lab.state.card_resets()
    assert resets > 0, "QEMU does not tell of the resets by the guest's driver"
    cli.ok("root", "launch", "--kernel", cli.lab.state.machine.kernel)
    # What lies below 1 MiB is compared in the blackout only.
    for address in (16 * MIB, 64 << 10):
        inject(cli, address)
        cli.fails(3, f"1 pages, the first at {address:#x}", "handoff", "owner")
        before = frames_until(roots, "old", "owner", sender.sent + 50)
    inject(cli, 2**64 - 1)
    for taker in ("new", "old") * ROUNDS:
        hand(cli, "owner", taker)
        told = device.parse(before)[-1].last
        before = frames_until(roots, taker, "owner", sender.sent + 100)
        assert device.parse(before)[-1].last > told
        assert device.interrupts(cli.lab.run(["cat", "/proc/interrupts"], root=taker).stdout) > 0
        assert device.foreign_lines(before) == 0, before[-2000:]
        assert cli.lab.state.card_resets() == resets
    assert cli.lab.state.resets() == 0
    cli.ok("vm", "rm", "--force", "owner")


def give_to(cli: Cli, address: str, driver: str, root: str) -> None:
    """A device whose VM has ended goes to a driver of the root's kernel, the way a person would do it."""
    steps = (
        f"modprobe {driver}",
        f"cd /sys/bus/pci/devices/{address}",
        "echo > driver_override",
        f"echo {address} > driver/unbind",
        f"echo {address} > /sys/bus/pci/drivers_probe",
        "ip link set $(ls net) up",
    )
    done = cli.lab.run(["sh", "-c", " && ".join(steps)], root=root)
    assert done.returncode == 0, done.stderr
    assert received(cli, address, root) > 0


def received(cli: Cli, address: str, root: str) -> int:
    """Frames that a card of the root's own has received, from now on at least one."""
    count = f"cat /sys/bus/pci/devices/{address}/net/*/statistics/rx_packets"
    before = int(cli.lab.run(["sh", "-c", count], root=root).stdout)
    more = f"until [ $({count}) -gt {before} ]; do :; done; {count}"
    return int(cli.lab.run(["sh", "-c", more], root=root).stdout)


def drives_the_card(cli: Cli) -> bool:
    """Whether the roots' kernel has drivers for the card; those for clouds have not."""
    return cli.lab.run(["modprobe", "--dry-run", "--all", "igb", "igbvf"]).returncode == 0


@pytest.mark.timeout(900)
def test_a_virtual_function_goes_along_and_its_card_stays(cli: Cli, roots: Channels, sender: Sender) -> None:
    """Proves that an SR-IOV function goes to another kernel and back while the card it is a part of works on
    for the old root, no frame lost and the guest's driver silent; that a device is the kernel's again when
    its VM has ended: the card in the old root, which makes the function, and the function in the new root,
    where it can be reset and its driver there receives frames; that an old root with a card of which a VM has
    a part does not retire.
    """
    if not drives_the_card(cli):
        pytest.skip("this kernel has no driver for the card, which makes the function")
    give_to(cli, f"0000:{device.CARD}", "igb", "old")
    enable = f"echo 1 > /sys/bus/pci/devices/0000:{device.CARD}/sriov_numvfs"
    assert cli.lab.run(["sh", "-c", enable]).returncode == 0
    own = ("--device", FUNCTION, "--append", device.APPEND)
    cli.ok("vm", "run", "function", "--guest", device.GUEST, *own)
    frames_until(roots, "old", "function", sender.sent)
    resets = cli.lab.state.card_resets()
    for taker in ("new", "old", "new"):
        hand(cli, "function", taker)
        output = frames_until(roots, taker, "function", sender.sent + 50)
        assert device.foreign_lines(output) == 0, output[-2000:]
        assert received(cli, f"0000:{device.CARD}", "old") > 0
    assert cli.lab.state.card_resets() == resets
    cli.refused(3, "belongs to root 2", "vm", "run", "other", "--device", FUNCTION)
    cli.refused(3, f"is a part of 0000:{device.CARD}", "update", "--kernel", cli.lab.state.machine.kernel)
    cli.ok("vm", "rm", "--force", "function", "--root", "new")
    (there,) = cli.lab.run(
        ["sh", "-c", f"cd /sys/bus/pci/devices; echo *{FUNCTION}"], root="new"
    ).stdout.split()
    assert (
        cli.lab.run(["sh", "-c", f"echo 1 > /sys/bus/pci/devices/{there}/reset"], root="new").returncode == 0
    )
    give_to(cli, there, "igbvf", "new")
    assert cli.lab.state.resets() == 0


def masters_the_bus(cli: Cli, address: str) -> bool:
    """Whether a device may access memory: bit 2 of the command register, at 4 in its configuration."""
    config = f"/sys/bus/pci/devices/0000:{address}/config"
    command = cli.lab.run(["od", "-An", "-tu2", "-j4", "-N2", config])
    assert command.returncode == 0, command.stderr
    return bool(int(command.stdout) & 1 << 2)


def writes_until(cli: Cli, roots: Channels, root: str, above: int) -> int:
    """How many writes of the VM "writer" have ended once it is more than that, all of them on the disk.

    Where it was not booted its kernel must have been silent.
    """
    output = device.output_until(roots[root], "writer", above, guests.BOOT_TIMEOUT)
    seen = device.parse_writes(output)[-1]
    assert seen.done > above
    assert seen.bad == 0
    if b"Linux version" not in output:
        assert device.foreign_lines(output) == 0, output[-2000:]
    disk = disk_file(cli.lab.state.machine, 3).read_bytes()[device.BLOCK :]
    assert device.misplaced(disk, seen) == []
    return seen.done


@pytest.mark.timeout(900)
def test_a_disk_goes_the_same_way(cli: Cli, roots: Channels) -> None:
    """Proves that nothing of this is about the one card: a VM with an NVMe disk of its own, to which it keeps
    writing numbered blocks, goes to the other kernel and back; no write fails or is missing on the disk."""
    # Its kernel's watchdogs would tell of the time for which the last test keeps it from running.
    quiet = "nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
    own = ("--device", DISK, "--append", f"ticker.disk=nvme0n1 loglevel=7 {quiet}")
    cli.ok("vm", "run", "writer", "--guest", device.GUEST, *own)
    done = writes_until(cli, roots, "old", 100)
    for taker in ("new", "old"):
        hand(cli, "writer", taker)
        done = writes_until(cli, roots, taker, done + 200)


@pytest.mark.timeout(900)
@takes_longer
def test_a_virtio_card_goes_the_same_way(cli: Cli, roots: Channels) -> None:
    """Proves that the new root's own driver, which is part of its kernel, leaves the device alone: a virtio
    card, with frames as the other one."""
    own = ("--device", VIRTIO, "--append", device.APPEND)
    with Sender(card_sockets(cli.lab.state.machine, 4)[0]) as sender:
        cli.ok("vm", "run", "virtio", "--guest", device.GUEST, *own)
        frames_until(roots, "old", "virtio", sender.sent)
        for taker in ("new", "old"):
            hand(cli, "virtio", taker)
            frames_until(roots, taker, "virtio", sender.sent + 50)
    cli.ok("vm", "rm", "--force", "virtio")


def test_none_of_the_devices_dma_was_blocked(cli: Cli) -> None:
    """Proves that the IOMMU has found no fault since the one that a test provoked."""
    for root in ("old", "new"):
        code = "from multiroot.device.passthrough import Iommu; print(Iommu().info().faults)"
        # The one of the test before, in the root where it was provoked.
        assert json.loads(cli.lab.run(["python3", "-c", code], root=root).stdout) == (root == "old")


@pytest.mark.timeout(900)
def test_a_new_root_that_dies_when_all_is_prepared_leaves_the_disk_at_work(cli: Cli, roots: Channels) -> None:
    """Proves that a VM and its disk go on in the old root, no write lost, when the new root crashes between
    the device's preparation there and the transfer. Until it has, the giver's QEMU is kept from going on.
    The next new root gets the VM: the dead one's part of the IOMMU's tables is free again. The function that
    the dead root's own driver had is stopped before that root's memory is used anew."""
    vms: Any = cli.data("vm", "list")
    (qemu,) = [str(vm["pid"]) for vm in vms if vm["name"] == "writer" and vm["state"] == "running"]
    done = writes_until(cli, roots, "old", 0)
    cli.lab.run(["kill", "-STOP", qemu])
    stub = coordinator_pb2_grpc.CoordinatorServiceStub(roots["old"])
    events = stub.Handoff(coordinator_pb2.HandoffRequest(names=["writer"], to="new"))
    while next(events).phase.name != "verify translations":
        continue
    cli.crash_new_root()
    cli.lab.run(["kill", "-CONT", qemu])
    with pytest.raises(PeerLostError), translated("the old root's agent"):
        list(events)
    done = writes_until(cli, roots, "old", done + 200)
    if function := drives_the_card(cli):
        writes_on = "the dead root's own device writes on, as it would on any machine"
        assert masters_the_bus(cli, FUNCTION), writes_on
    cli.ok("root", "release")
    assert not (function and masters_the_bus(cli, FUNCTION))
    assert masters_the_bus(cli, DISK)
    cli.ok("root", "launch", "--kernel", cli.lab.state.machine.kernel)
    hand(cli, "writer", "new")
    writes_until(cli, roots, "new", done + 200)
    assert cli.lab.state.resets() == 0
