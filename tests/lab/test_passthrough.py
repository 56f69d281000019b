# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM takes its own network card along to another kernel; the card works on and nobody tells it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import scenario
from multiroot.lab.machine import card_sockets
from multiroot.lab.wire import Sender
from multiroot.rpc import client

KERNEL = "6.12-full"
CARD = "01:00.0"
EDU = "02:00.0"
GUEST_TIMEOUT = 180.0
FRAMES = re.compile(rb"^F (\d+) (\d+) count=(\d+) lost=(\d+) again=(\d+)$", re.MULTILINE)
HISTORY = """
import sys
from pathlib import Path
from multiroot.vm.history import read_history
for piece in read_history(Path('/run/multiroot/vms/owner/console.rec')):
    sys.stdout.buffer.write(piece.data)
"""


@pytest.fixture(scope="module")
def cli(labs_factory: Labs) -> Iterator[Cli]:
    """A machine with an IOMMU and an igb card, and no VM yet."""
    lab = labs_factory.fresh(kernel=KERNEL, machine="passthrough")
    with client.connect("old", lab.agent_address) as old:
        scenario._status(old, wait=True)
    yield Cli(lab)
    labs_factory.discard(lab)


def console(cli: Cli, root: str) -> bytes:
    done = cli.lab.run(["python3", "-c", HISTORY], root=root)
    assert done.returncode == 0, done.stderr
    return done.stdout.encode()


def frames(text: bytes) -> list[tuple[int, ...]]:
    """(first, last, count, lost, again) of every line that came whole."""
    return [tuple(int(number) for number in match) for match in FRAMES.findall(text)]


def wait_for_frames(cli: Cli, root: str, above: int) -> list[tuple[int, ...]]:
    """All lines once the guest has told of a frame numbered above `above`."""
    until = time.monotonic() + GUEST_TIMEOUT
    while time.monotonic() < until:
        seen = frames(console(cli, root))
        if seen and seen[-1][1] > above:
            return seen
    raise AssertionError(f"no frame above {above} in root {root}: {console(cli, root)[-800:]!r}")


@pytest.mark.parametrize(
    ("code", "says", "device"),
    [
        (2, "not a PCI address", "nonsense"),
        (2, "no PCI device 09:00.0", "09:00.0"),
        (3, "shares its IOMMU group", "00:1f.2"),
        (3, "no MSI-X", EDU),
    ],
)
def test_devices_that_cannot_go_along_are_refused(cli: Cli, code: int, says: str, device: str) -> None:
    """Proves that such a VM is not started, with one line that says why."""
    cli.refused(code, says, "vm", "run", "other", "--device", device)


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


def test_the_card_works_on_through_a_handoff(cli: Cli) -> None:
    """Proves that of a stream of numbered frames none is lost and none comes twice while the VM changes
    kernels, that the IOMMU translates the same before and after, and that the guest's driver says nothing.
    """
    cli.ok("vm", "run", "owner", "--device", CARD, "--guest", "ticker-full",
           "--append", "ticker.card=eth1 loglevel=7")  # fmt: skip
    cli.refused(3, "owned by VM owner", "vm", "run", "second", "--device", CARD)
    with Sender(card_sockets(cli.lab.state.machine, 1)[0]) as sender:
        wait_for_frames(cli, "old", sender.sent)
        cli.ok("root", "launch", "--kernel", KERNEL)
        handed: Any = cli.data("handoff", "owner")
        wait_for_frames(cli, "new", sender.sent + 100)
    old, new = console(cli, "old"), console(cli, "new")
    before, after = frames(old)[-1], frames(new)[0]
    first, last, count, lost, again = frames(old + new)[-1]
    assert (lost, again) == (0, 0)
    assert count == last - first + 1
    assert after[1] > before[1]
    moved = handed["device"]
    assert moved["same"] > 0
    assert moved["before"]["crc"] == moved["after"]["crc"]
    assert moved["before"]["leaves"] == moved["after"]["leaves"]
    assert moved["before"]["context"] == moved["after"]["context"]
    assert moved["before"]["did"] == moved["after"]["did"]
    assert (moved["before"]["owner"], moved["after"]["owner"]) == (1, 2)
    said = [line for line in new.split(b"\n")[1:-1] if not re.match(rb"[TRF] ", line)]
    assert said == []
    assert cli.lab.state.resets() == 0


def test_interrupts_come_in_the_new_root(cli: Cli) -> None:
    """Proves that the card's interrupts are the new kernel's now, and that DMA was never blocked."""
    table = cli.lab.run(["cat", "/proc/interrupts"], root="new").stdout
    counts = [
        sum(map(int, re.findall(r"\s(\d+)(?=\s)", line)))
        for line in table.splitlines()
        if "vfio-msix" in line
    ]
    assert sum(counts) > 0
    for root in ("old", "new"):
        code = "from multiroot.device.passthrough import Iommu; print(Iommu().info().faults)"
        # The one of the test before, in the root where it was provoked.
        assert json.loads(cli.lab.run(["python3", "-c", code], root=root).stdout) == (root == "old")
