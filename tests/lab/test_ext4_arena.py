# SPDX-License-Identifier: GPL-2.0-or-later
"""An arena that is a file of ext4 with DAX in the first root; later ones have its bytes by our own device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import root_life
from cli_driver import Cli
from kernel_trouble import trouble
from lab_factory import Labs

from multiroot.lab.backends import Backend
from multiroot.lab.lab import Lab
from multiroot.vm.messages import ticks_from_proto
from multiroot.vm.ticks import continuity

LOOK = (Path(__file__).parent / "guest/where_is_the_arena.py").read_text()
FILE, OWN = "a file of ext4 with DAX", "multiroot's own device"
TICKS = 130  # among so many is one that says what the guest found in its memory


def arena(lab: Lab, root: str, kind: str) -> tuple[int, int]:
    """Address and size of a root's arena, which is of that kind and where the root takes it to be."""
    done = lab.run(["python3", "-c", LOOK], root=root)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["kind"] == kind
    assert found["seen"] == [found["physical"]] * 2
    assert f"({kind})" in lab.run(["multiroot", "doctor"], root=root).stdout
    assert Cli(lab).lab_data("arena", "show", root=root)["backend"] == kind
    return found["physical"], found["size"]


def mounts(lab: Lab, root: str) -> list[str]:
    """What a root has mounted of file systems that could hold the file."""
    table = lab.run(["cat", "/proc/mounts"], root=root).stdout
    return [line.split(" ")[1] for line in table.splitlines() if line.split(" ")[2] == "ext4"]


def ticking(lab: Lab, root: str = "old") -> None:
    """The guest goes on there, has lost nothing, and finds in its memory what it wrote."""
    told = Cli(lab).goes_on("web", root=root, more=TICKS)
    found = continuity(ticks_from_proto(told).ticks)
    assert found
    assert found.unbroken
    assert found.checked_bytes > 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("old", "new"), [("6.12", "6.12"), ("6.1", "7.x"), ("7.x", "6.1")])
def test_a_vm_goes_from_a_file_to_a_device_and_back_and_through_updates(
    labs_factory: Labs, old: str, new: str
) -> None:
    """Proves that both roots have the same memory, by their page tables, and that only the first one mounts
    anything; that a VM goes from the file to the device and back, with its memory whole and in huge pages;
    that a VM with a device is refused where the arena is the file; that the VM lives through an update in
    which the root with the file retires, and the next one, to its kernel; and that no kernel complains.
    """
    lab = labs_factory.fresh(append=Backend.EXT4.appended(""), vms=1, kernel=old, kernels=(new,))
    cli = Cli(lab)
    place = arena(lab, "old", FILE)
    assert mounts(lab, "old") == ["/run/multiroot/arena"]
    card = lab.run(["sh", "-c", "ls /sys/bus/pci/drivers/virtio-pci | grep -m 1 ^0"]).stdout.strip()
    cli.refused(3, f"the arena is {FILE}", "vm", "run", "dev", "--device", card.removeprefix("0000:"))

    cli.ok("vm", "run", "web", "--memory", "128M", "--append", "ticker.region=16")
    ticking(lab)
    cli.ok("root", "launch", "--kernel", new)
    assert arena(lab, "new", OWN) == place
    assert mounts(lab, "new") == []
    cli.ok("handoff", "web")
    ticking(lab, "new")
    cli.ok("handoff", "web", "--to", "old")
    ticking(lab)
    assert "of 2 MiB" in cli.ok("vm", "show", "web")
    assert trouble(lab, "new") == []
    cli.ok("root", "release")

    root_life.update(lab, "--kernel", new)
    assert arena(lab, "old", OWN) == place
    ticking(lab)
    root_life.update(lab, "--kernel", old)
    assert arena(lab, "old", OWN) == place
    ticking(lab)
    assert trouble(lab) == []
    labs_factory.discard(lab)
