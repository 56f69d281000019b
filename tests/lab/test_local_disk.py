# SPDX-License-Identifier: GPL-2.0-or-later
"""A file on the machine's own disk is a VM's disk, in whichever root the VM is and whichever has the disk."""

from __future__ import annotations

import base64
import gzip
import time

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo import device, guests
from multiroot.phase_names import PhaseName
from multiroot.rpc import client

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

FOLDER, FILE = "/mnt", "/mnt/my disk.raw"
SOURCE = f"local:{FILE}"
SIZE = "8M"
MOUNTED_S = 300.0


def writes(cli: Cli, vm_in: str, disk_in: str, more: int) -> None:
    """So many more writes of the guest in root `vm_in` end, all of them well, and are in the file."""
    with client.connect(cli.lab.agent_address, root=vm_in) as channel:
        seen = device.parse_writes(device.output_until(channel, "writer", 0, guests.BOOT_TIMEOUT))
        before = seen[-1].done
        output = device.output_until(channel, "writer", before + more, guests.BOOT_TIMEOUT)
    last = device.parse_writes(output)[-1]
    assert last.bad == 0
    kept = cli.lab.run(["sh", "-c", f"gzip -c '{FILE}' | base64"], root=disk_in).stdout
    assert device.misplaced(gzip.decompress(base64.b64decode(kept))[device.BLOCK :], last) == []


@pytest.mark.parametrize(
    ("kind", "node"), [("disk", "/dev/vda"), ("disk-nvme", "/dev/nvme0n1")], ids=["virtio", "nvme"]
)
def test_a_file_of_the_machines_disk_goes_along(labs_factory: Labs, kind: str, node: str) -> None:
    """Proves that each write that a guest was told of is in the file on the machine's disk: in the root that
    has it, in the other one, after a restart of the agent, and after the old root has retired and the new
    one has mounted the disk; and that no other VM and no other server gets the file meanwhile."""
    machine = labs_factory.fresh(machine=kind, vms=1)
    cli = Cli(machine)
    run = ("--memory", "128M", "--append", "ticker.disk=vda", "--disk", SOURCE)
    cli.refused(
        3, "no root serves the disk", "vm", "run", "writer", "--memory", "128M", "--disk", "local:/mnt/none"
    )
    setup = f"mkfs.ext4 -q {node} && mount -t ext4 {node} {FOLDER} && truncate -s {SIZE} '{FILE}'"
    machine.run(["sh", "-c", setup])
    cli.ok("vm", "run", "writer", *run)
    writes(cli, "old", "old", 100)
    cli.refused(3, "is VM writer's, in root 1", "vm", "run", "other", *run)
    machine.run(["ln", FILE, f"{FOLDER}/other.raw"])
    other = ("--memory", "128M", "--disk", f"local:{FOLDER}/other.raw")
    cli.refused(3, "is in use, perhaps by another name", "vm", "run", "other", *other)

    cli.ok("root", "launch", "--kernel", "6.12")
    cli.ok("handoff", "writer")
    writes(cli, "new", "old", 100)
    machine.run(["pkill", "-9", "-o", "-f", "/usr/bin/multirootd"])  # of the root that serves the file
    until = time.monotonic() + guests.BOOT_TIMEOUT
    while cli.run("root", "show", "new").returncode:
        assert time.monotonic() < until, "no agent, or it does not know its new root any more"
    writes(cli, "new", "old", 100)
    cli.ok("handoff", "writer", "--to", "old")
    writes(cli, "old", "old", 100)
    cli.ok("root", "release")

    done = cli.data("update", "--kernel", "6.12")
    phases = {phase["name"] for phase in done["phases"]}  # type: ignore[index]
    until = time.monotonic() + MOUNTED_S
    while PhaseName.DISKS_AWAY not in phases and "ext4" not in machine.run(["mount"], root="3").stdout:
        assert time.monotonic() < until
        time.sleep(1)  # nobody tells of a mount
    writes(cli, "3", "3", 200)
    assert cli.data("vm", "show", "writer")["waits_for"] == []  # type: ignore[index]
    assert machine.state.resets() == 0
    labs_factory.discard(machine)
