# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that all roots reach, an image file of this computer's, goes with its VM from kernel to kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cli_driver import Cli
from lab_factory import Labs
from second_writer import cannot_write

from multiroot.demo import device, guests
from multiroot.lab import grub
from multiroot.rpc import client
from multiroot.units import MIB

SIZE = 128 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        # Without it, a file is no disk.
        file.write(grub.SIGNATURE.rjust(device.BLOCK, b"\0"))
        file.truncate(SIZE)
    return path


@pytest.fixture
def cli(labs_factory: Labs, disk: Path) -> Iterator[Cli]:
    lab = labs_factory.fresh(vms=2, disks=(str(disk),))
    yield Cli(lab)
    labs_factory.discard(lab)


def writes_until(cli: Cli, disk: Path, root: str, above: int) -> int:
    """How many writes of the VM "writer" have ended once it is more than that, all of them on the disk."""
    with ExitStack() as stack:
        channel = stack.enter_context(client.connect(cli.lab.agent_address, root=root))
        seen = device.parse_writes(device.output_until(channel, "writer", above, guests.BOOT_TIMEOUT))[-1]
    assert seen.done > above
    assert seen.bad == 0
    assert device.misplaced(disk.read_bytes()[device.BLOCK :], seen) == []
    return seen.done


def the_loser_tries(cli: Cli, node: str) -> None:
    """The old root, which has handed the VM over, does what it can with it and with its disk."""
    for words in (("start", "writer"), ("resume", "writer"), ("reset", "writer")):
        cli.refused(3, "root 2", "vm", *words, "--root", "old")
    cannot_write(cli.lab, "old", {"driver": "host_device", "filename": node})
    opened = cli.lab.run(["sh", "-c", f"ls -l /proc/[0-9]*/fd 2>/dev/null | grep {node}"])
    assert opened.stdout == ""


def test_writes_to_a_disk_go_on_through_handoffs_and_an_update(cli: Cli, disk: Path) -> None:
    """Proves that each write that a guest was told of is on the disk, whatever root it went through: there
    and back, and after the old root has ended; that no other VM gets the disk meanwhile, in either root, and
    that the root that has lost the VM can't write there by what it has; and that the disk is free again when
    the VM has ended.
    """
    (found,) = [each for each in cli.lab_data("disk", "list") if not each["read_only"]]
    assert found["size"] == SIZE
    source = ("--disk", found["source"])
    cli.ok("vm", "run", "writer", "--memory", "128M", *source, "--append", "ticker.disk=vda")
    done = writes_until(cli, disk, "old", 100)
    cli.ok("root", "launch", "--kernel", "7.x")
    cli.ok("handoff", "writer")
    done = writes_until(cli, disk, "new", done + 200)
    for root in ("old", "new"):
        taken = f"the disk {found['source']} is VM writer's, in root 2"
        cli.refused(3, taken, "vm", "run", "other", "--memory", "128M", *source, "--root", root)
    the_loser_tries(cli, found["node"])
    done = writes_until(cli, disk, "new", done + 400)
    cli.ok("handoff", "writer", "--to", "old")
    done = writes_until(cli, disk, "old", done + 200)
    cli.ok("root", "release")
    cli.ok("update", "--kernel", "7.x")
    writes_until(cli, disk, "3", done + 200)
    cli.ok("vm", "rm", "--force", "writer")
    cli.ok("vm", "run", "other", "--memory", "128M", *source)
    assert cli.lab.state.resets() == 0
