# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM and its card go through whole updates, one kernel after the other, and the card works all the way."""

from __future__ import annotations

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import device, guests
from multiroot.demo.generations import NAME, Generations
from multiroot.lab.lab import Lab
from multiroot.lab.machine import card_sockets
from multiroot.lab.wire import Sender
from multiroot.rpc import client
from multiroot.units import MIB

DISK = "03:00.0"


def output_until(lab: Lab, name: str, above: int) -> bytes:
    with client.connect(lab.agent_address) as channel:
        return device.output_until(channel, name, above, guests.BOOT_TIMEOUT)


def frames_until(lab: Lab, sender: Sender) -> None:
    """Until the card's VM has had a second of frames from now on; every number up to there came once."""
    above = sender.sent + device.FRAMES_AFTER
    seen = device.parse(output_until(lab, "card", above))[-1]
    assert seen.last > above
    assert seen.unbroken, seen


def writes_until(lab: Lab, above: int) -> int:
    """How many writes of the disk's VM have ended, more than that, none of them badly."""
    seen = device.parse_writes(output_until(lab, "disk", above))[-1]
    assert seen.done > above
    assert seen.bad == 0
    return seen.done


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("updates", [1, 3])
def test_a_card_works_on_through_whole_updates(labs_factory: Labs, updates: int) -> None:
    """Proves that whole updates carry a VM with its network card, from root 1 to 2, and with `-m long` on
    to 3 and 4. Each has the whole machine when the one before has retired. A numbered frame comes in every
    10 ms all the time. None is lost and none comes twice, nobody resets the card, no DMA is blocked, the
    guest's driver prints nothing, interrupts come in each root, and nothing leaks from root to root. In the
    last root the VM is stopped, and both its card and a disk that no VM ever had go to new VMs. Two more
    updates are taken back when these have gone over, and both devices work on. One of these two new roots
    would have its tables where the last root's are, if roots did not note which half is whose.
    """
    lab = labs_factory.fresh(kernel=device.KERNEL, machine=device.MACHINE, vms=2)
    generations = Generations(lab, 256 * MIB, labs_factory.phases, card=True)
    seen = generations.run([device.KERNEL] * updates, lambda _: None)
    assert [generation.inventory.root for generation in seen] == list(range(2, updates + 2))

    cli = Cli(lab)
    cli.ok("vm", "rm", "--force", NAME)
    with Sender(card_sockets(lab.state.machine, 1)[0]) as sender:
        for name, own, append in (
            ("card", device.CARD, device.APPEND),
            ("disk", DISK, "ticker.disk=nvme0n1"),
        ):
            cli.ok("vm", "run", name, "--guest", device.GUEST, "--device", own, "--append", append)
        frames_until(lab, sender)
        done = writes_until(lab, 100)
        for _ in range(2):
            cli.ok("update", "--kernel", device.KERNEL, "--until", "handover")
            cli.ok("update", "abort")
            frames_until(lab, sender)
            done = writes_until(lab, done + 100)
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
