# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM and its card go through whole updates, one kernel after the other, and the card works all the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import device, guests
from multiroot.demo.generations import NAME, Generation, Generations
from multiroot.lab.lab import Lab
from multiroot.lab.machine import card_sockets
from multiroot.lab.wire import Sender
from multiroot.rpc import client
from multiroot.units import MIB

DISK = "03:00.0"


def card(lab: Lab) -> Path:
    return card_sockets(lab.state.machine, 1)[0]


def frames_until(lab: Lab, above: int) -> device.Frames:
    """The guest's account once it holds that number; every frame up to there came once."""
    with client.connect(lab.agent_address) as channel:
        seen = device.parse(device.output_until(channel, NAME, above, guests.BOOT_TIMEOUT))[-1]
    assert seen.last > above
    assert seen.unbroken, seen
    return seen


def handed_over_and_taken_back(lab: Lab, sender: Sender) -> None:
    """An update that is aborted when the VM has gone over: the VM and its card come back."""
    cli = Cli(lab)
    cli.ok("update", "--kernel", device.KERNEL, "--until", "handover")
    cli.ok("update", "abort")
    frames_until(lab, sender.sent + device.FRAMES_AFTER)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("updates", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_card_works_on_through_whole_updates(labs_factory: Labs, updates: int) -> None:
    """Proves that whole updates carry a VM with its network card, from root 1 to 2, and with `-m long` on
    to 3 and 4. Each has the whole machine when the one before has retired. A numbered frame comes in every
    10 ms all the time. None is lost and none comes twice, nobody resets the card, no DMA is blocked, the
    guest's driver prints nothing, interrupts come in each root, and nothing leaks from root to root. In the
    last root two more updates are taken back after the handover: one of these new roots would have its
    tables where the last root's are, if roots did not say which half is theirs. Then the VM is stopped
    there, and both its card and a disk that no VM ever had work for VMs again.
    """
    lab = labs_factory.fresh(kernel=device.KERNEL, machine=device.MACHINE, vms=2)
    generations = Generations(lab, 256 * MIB, labs_factory.phases, card=True)
    roots: list[int] = []

    def seen(generation: Generation) -> None:
        roots.append(generation.inventory.root)
        if len(roots) == updates:
            assert generations.sender
            for _ in range(2):
                handed_over_and_taken_back(lab, generations.sender)

    generations.run([device.KERNEL] * updates, seen)
    assert roots == list(range(2, updates + 2))

    cli = Cli(lab)
    cli.ok("vm", "stop", NAME)
    for name, own, append in (("card", device.CARD, device.APPEND), ("disk", DISK, "ticker.disk=nvme0n1")):
        cli.ok("vm", "run", name, "--guest", device.GUEST, "--device", own, "--append", append)
        with client.connect(lab.agent_address) as channel, Sender(card(lab)) as sender:
            assert device.output_until(channel, name, sender.sent, guests.BOOT_TIMEOUT)
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
