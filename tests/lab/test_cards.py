# SPDX-License-Identifier: GPL-2.0-or-later
"""Several cards of a VM, one of them with several queues, by vhost: before, between and after handoffs."""

from __future__ import annotations

from typing import Any

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.lab.lab import Lab
from multiroot.net import namespace
from multiroot.net.plan import GUEST_BRIDGE

pytestmark = pytest.mark.timeout(1500)

# Each card has a network of its own, so that the guest answers on the card that it was asked on.
NETWORKS = ("10.77.5", "10.77.6")
QUEUES = (1, 2)
# A guest's kernel refuses a connection to a port that nobody listens on: that it answers is the point.
KNOCK = """
import socket, sys
try: socket.create_connection((sys.argv[1], 9), timeout=60)
except ConnectionRefusedError: print("refused")
"""
# A kernel thread, and since Linux 6.4 a thread of QEMU's, for each queue.
WORKERS = "cat /proc/[0-9]*/task/*/comm | grep -cx vhost-{pid}"
# Those that the guest's driver has taken into use. /sys shows the network that one is in.
TAP_QUEUES = "for tap in /sys/class/net/mrtap*; do ls $tap/queues | grep -c rx; done"


def there(lab: Lab, root: str) -> None:
    """The bridge of that root is in the networks of the guest's cards."""
    for network in NETWORKS:
        add = ["ip", "-n", namespace.NAME, "address", "replace", f"{network}.254/24", "dev", GUEST_BRIDGE]
        assert lab.run(add, root=root).returncode == 0


def check_cards(cli: Cli, root: str, macs: list[str]) -> None:
    """Each card answers for its own address, has its queues, and vhost has a worker for each of them."""
    lab = cli.lab
    for network, mac in zip(NETWORKS, macs, strict=True):
        address = f"{network}.1"
        lab.run(["ip", "-n", namespace.NAME, "neighbour", "flush", "dev", GUEST_BRIDGE], root=root)
        knock = lab.run([*namespace.EXEC, "python3", "-c", KNOCK, address], root=root)
        assert knock.stdout == "refused\n", (root, address, knock.stderr)
        known = lab.run(["ip", "-n", namespace.NAME, "neighbour", "show", address], root=root).stdout
        assert f"lladdr {mac}" in known, (root, known)
    queues = lab.run([*namespace.EXEC, "sh", "-c", TAP_QUEUES], root=root).stdout
    assert sorted(map(int, queues.split())) == sorted(QUEUES), (root, queues)
    shown: Any = cli.data("vm", "show", "cards", "--root", root)
    workers = lab.run(["sh", "-c", WORKERS.format(pid=shown["pid"])], root=root).stdout
    assert int(workers) == sum(QUEUES), (root, workers)


def test_two_cards_one_with_two_queues_go_along(labs_factory: Labs) -> None:
    """Proves that a guest answers on each of two cards for the address of that card and no other, that a card
    with two queues uses both, and that vhost has a worker for each of the three, in a root with Linux 6.12
    and in one with 6.1, where the VM goes and comes back from; on a q35 and on a microvm, which counts its
    cards from the other end.
    """
    machine = labs_factory.fresh(kernels=("6.1",), vms=1)
    cli = Cli(machine)
    for root in ("old", "new"):
        if root == "new":
            cli.ok("root", "launch", "--kernel", "6.1")
        assert machine.run(["test", "-c", "/dev/vhost-net"], root=root).returncode == 0
        there(machine, root)
    first, second = (f"{network}.1/24" for network in NETWORKS)
    for kind in ("q35", "microvm"):
        cli.ok(
            "vm", "run", "cards", "--memory", "128M", "--cpus", "2", "--machine", kind,
            "--address", first, "--card", f"address={second},queues={QUEUES[1]}",
        )  # fmt: skip
        shown: Any = cli.data("vm", "show", "cards")
        macs = [card["mac"] for card in shown["cards"]]
        cli.goes_on("cards", root="old")
        check_cards(cli, "old", macs)
        for root in ("new", "old"):
            cli.ok("handoff", "cards", "--to", root)
            cli.goes_on("cards", root=root)
            check_cards(cli, root, macs)
        cli.ok("vm", "rm", "--force", "cards")
    labs_factory.discard(machine)
