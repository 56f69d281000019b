# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM takes its own network card along to another kernel; the card works on and nobody tells it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import device, guests, scenario
from multiroot.lab.machine import card_sockets
from multiroot.lab.wire import Sender
from multiroot.rpc import client

EDU = "02:00.0"
# There and back; MULTIROOT_ROUNDS=5 makes it ten handoffs, which takes two minutes more.
ROUNDS = int(os.environ.get("MULTIROOT_ROUNDS", "2"))


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A machine with an IOMMU and an igb card, and no VM yet."""
    lab = labs_factory.fresh(kernel=device.KERNEL, machine=device.MACHINE)
    with client.connect("old", lab.agent_address) as old:
        scenario._status(old, wait=True)
    yield Cli(lab)
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


@pytest.mark.timeout(1500)
def test_the_card_works_on_through_handoffs(cli: Cli) -> None:
    """Proves that of a stream of numbered frames none is lost and none comes twice while the VM goes to
    another kernel and back, several times; that interrupts come in the root that runs it, that the IOMMU
    translates the same before and after, that nobody resets the card (by the emulator's own account), and
    that the guest's driver says nothing.
    """
    cli.ok("vm", "run", "owner", "--device", device.CARD, "--guest", device.GUEST, "--append", device.APPEND)
    cli.refused(3, "owned by VM owner", "vm", "run", "second", "--device", device.CARD)
    with ExitStack() as stack:
        sender = stack.enter_context(Sender(card_sockets(cli.lab.state.machine, 1)[0]))
        roots = {
            name: stack.enter_context(client.connect(name, cli.lab.agent_address)) for name in ("old", "new")
        }
        before = device.output_until(roots["old"], "owner", sender.sent, guests.BOOT_TIMEOUT)
        resets = cli.lab.state.card_resets()
        assert resets > 0, "QEMU does not tell of the resets by the guest's driver"
        cli.ok("root", "launch", "--kernel", device.KERNEL)
        for giver, taker in [("old", "new"), ("new", "old")] * ROUNDS:
            handed: Any = cli.data("handoff", "owner", "--to", taker)
            after = device.output_until(roots[taker], "owner", sender.sent + 100, guests.BOOT_TIMEOUT)
            told = device.parse(before)[-1].last
            seen = device.parse(after)[-1]
            table = cli.lab.run(["cat", "/proc/interrupts"], root=taker).stdout
            assert device.interrupts(table) > 0
            assert seen.unbroken, (giver, taker, seen)
            assert seen.last > told
            assert device.foreign_lines(after) == 0, after[-2000:]
            moved = handed["device"]
            assert moved["same"] > 0
            assert all(
                moved["before"][key] == moved["after"][key] for key in ("did", "context", "leaves", "crc")
            )
            assert moved["before"]["owner"] != moved["after"]["owner"]
            assert cli.lab.state.card_resets() == resets
            before = after
    assert cli.lab.state.resets() == 0


def test_none_of_the_cards_dma_was_blocked(cli: Cli) -> None:
    """Proves that the IOMMU has found no fault since the one that a test provoked."""
    for root in ("old", "new"):
        code = "from multiroot.device.passthrough import Iommu; print(Iommu().info().faults)"
        # The one of the test before, in the root where it was provoked.
        assert json.loads(cli.lab.run(["python3", "-c", code], root=root).stdout) == (root == "old")
