# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from multiroot.arena.allocator import Extent
from multiroot.clocks import wall_clock
from multiroot.units import MIB
from multiroot.vm.definition import WATCHDOG_ACTIONS, Card, VmDefinition
from multiroot.vm.guests import GuestImage, guest_command_line
from multiroot.vm.qemu.command import Descriptors, Incoming, Qemu, command, machine
from multiroot.vm.vmm import CardWires, VmmSetup

DEFINITION = VmDefinition(
    "vm0", cpus=2, cards=(Card(address="10.77.1.1/16"),), append="ticker.region=8"
).checked()
EXTENT = Extent(2 * MIB, 256 * MIB)
SETUP = VmmSetup(
    DEFINITION,
    Path("/dev/dax0.0"),
    EXTENT,
    GuestImage.of(Path("/guests"), "ticker"),
    Path("/run/vm0"),
    Path("/run/vm0/log"),
    wall_clock(lambda: 0),
)


def values(argv: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(argv) if word == option]


def test_ram_is_the_extent_shared() -> None:
    argv = command(Qemu(), SETUP, Descriptors(5, 6))
    assert values(argv, "-object") == [
        "memory-backend-file,id=ram,size=268435456B,mem-path=/dev/dax0.0,offset=2097152B,align=2M,share=on",
        "monitor-qmp,id=qmp-control,chardev=qmp",
    ]
    assert values(argv, "-m") == ["size=268435456B"]
    assert "memory-backend=ram" in values(argv, "-machine")[0].split(",")


def test_ram_is_mapped_ahead_only_where_nothing_in_it_is_touched() -> None:
    memory, _ = values(command(Qemu(), replace(SETUP, populate=True), Descriptors(5, 6)), "-object")
    assert memory.endswith(",share=on,prealloc=on")


def test_descriptors_are_all_used() -> None:
    descriptors = Descriptors(5, 6, (CardWires((7,)),))
    argv = command(Qemu(), SETUP, descriptors)
    assert descriptors.all() == (5, 6, 7)
    text = " ".join(argv)
    for fd in descriptors.all():
        assert f"fd={fd}" in text
    _, card = values(argv, "-device")
    assert card.startswith("virtio-net-pci,")
    assert card.endswith(f",netdev=net0,mac={DEFINITION.card.mac}")


def test_several_cards_with_queues() -> None:
    definition = replace(DEFINITION, cpus=2, cards=(Card(), Card(queues=2))).checked()
    wires = (CardWires((7,), (8,)), CardWires((9, 10), (11, 12)))
    argv = command(Qemu(), replace(SETUP, definition=definition), Descriptors(5, 6, wires))
    assert Descriptors(5, 6, wires).all() == (5, 6, 7, 8, 9, 10, 11, 12)
    assert values(argv, "-netdev") == [
        "tap,id=net0,fd=7,vhost=on,vhostfd=8",
        "tap,id=net1,fds=9:10,vhost=on,vhostfds=11:12",
    ]
    _, first, second = values(argv, "-device")
    assert ("addr=0x1" in first.split(","), "mq=on" in first) == (True, False)
    assert {"addr=0x2", "mq=on", "vectors=6", "netdev=net1"} < set(second.split(","))


def test_without_tap_there_is_no_card() -> None:
    argv = command(Qemu(), SETUP, Descriptors(5, 6))
    assert not {"-netdev", "-nic"} & set(argv)
    assert values(argv, "-device") == ["pvpanic"]
    assert "-nodefaults" in argv


@pytest.mark.parametrize("action", WATCHDOG_ACTIONS)
def test_a_watchdog_and_what_is_done_when_it_fires(action: str) -> None:
    assert values(command(Qemu(), SETUP, Descriptors(5, 6)), "-action") == ["panic=none"]
    guarded = replace(SETUP, definition=replace(DEFINITION, watchdog=action).checked())
    argv = command(Qemu(), guarded, Descriptors(5, 6))
    assert values(argv, "-action") == [f"panic=none,watchdog={action}"]
    assert values(argv, "-device") == ["pvpanic", "i6300esb,addr=0x1d"]


def test_a_users_kernel_needs_no_initrd() -> None:
    definition = replace(DEFINITION, kernel="sha256:1").checked()
    image = GuestImage.of_user(definition, Path("/vm"))
    argv = command(Qemu(), replace(SETUP, definition=definition, image=image), Descriptors(5, 6))
    assert values(argv, "-kernel") == ["/vm/vmlinuz"]
    assert "-initrd" not in argv


def test_incoming_stays_stopped() -> None:
    waiting = command(Qemu(), SETUP, Descriptors(5, 6), incoming=Incoming())
    plain = command(Qemu(), SETUP, Descriptors(5, 6))
    assert waiting == [*plain, "-S", "-incoming", "defer"]


def test_baselines_wait_in_other_ways() -> None:
    other = Incoming(("tcp:1", "tcp:2"), stopped=False)
    argv = command(Qemu(), SETUP, Descriptors(5, 6), incoming=other)
    assert values(argv, "-incoming") == ["tcp:1", "tcp:2"]
    assert "-S" not in argv


def test_kvm_passes_the_host_cpu_on() -> None:
    assert values(command(Qemu(), SETUP, Descriptors(5, 6)), "-cpu") == ["host"]
    other = Qemu(Path("/q"), "tcg")
    argv = command(other, SETUP, Descriptors(5, 6))
    assert (argv[0], values(argv, "-cpu"), values(argv, "-accel")) == ("/q", ["max"], ["tcg"])


def test_machine_options_of_the_definition_win() -> None:
    parts = machine("q35,hpet=on").split(",")
    assert parts[0] == "q35"
    assert "hpet=on" in parts
    assert "hpet=off" not in parts
    assert "suppress-vmdesc=on" in machine("microvm").split(",")


def test_guest_command_line() -> None:
    assert guest_command_line(DEFINITION) == "console=ttyS0 quiet ticker.ip=10.77.1.1/16 ticker.region=8"
    assert guest_command_line(VmDefinition("vm0")) == "console=ttyS0 quiet"


def test_each_of_several_cards_gets_its_own_address() -> None:
    """A guest may count its cards otherwise than we do, so each is named."""
    cards = (Card(address="10.77.5.1/24"), Card(), Card(address="10.77.6.1/24"))
    made = VmDefinition("vm0", cards=cards).checked()
    one, _, other = (card.mac for card in made.cards)
    assert guest_command_line(made).endswith(f" ticker.ip=10.77.5.1/24@{one},10.77.6.1/24@{other}")
