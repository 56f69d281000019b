# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that people have and the usual lab machine is not: the whole life of roots on each of them."""

from __future__ import annotations

import time

import pytest
import root_life
from cli_driver import Cli
from lab_factory import Labs

from multiroot.errors import ConflictError
from multiroot.lab.lab import Lab
from multiroot.units import GIB

# The kernel of all roots, and what the first one says of itself where a recipe is what it claims to be.
MACHINES = {
    "x2apic": ("6.12", ("x2apic enabled", "Enabled IRQ remapping in x2apic mode")),
    "amd-iommu": ("6.12-full", ("AMD-Vi: Interrupt remapping enabled", "AMD-Vi: Extended features")),
    "one-cpu": ("6.12", ("smp: Brought up 1 node, 2 CPUs",)),
    "legacy-free": ("6.12", ("i8042: PNP: No PS/2 controller found", "tsc_early_khz=")),
    "no-hpet": ("6.12", ("i8042: PNP: No PS/2 controller found",)),
}
HPET = "hpet0: at MMIO"
# The root that has taken over runs on the second CPU, and the machine's boot CPU never changes roots.
ONE_UPDATE = ("one-cpu",)
ADOPT_S = 600


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("machine", MACHINES)
def test_roots_come_and_go_on_it(labs_factory: Labs, machine: str) -> None:
    """Proves for a machine that a new root is launched there, takes a VM and gives it back, is released, is
    launched again and crashes; that the old root retires and the new one takes all; that the next generation
    does the same, or is refused by name where no CPU is left for one; that the VM lives through it; and that
    nothing has reset the machine."""
    kernel, says = MACHINES[machine]
    lab = labs_factory.fresh(kernel=kernel, machine=machine, vms=1)
    log = lab.run(["dmesg"]).stdout
    for words in says:
        assert words in log
    assert (HPET in log) is (machine != "no-hpet")
    root_life.come_and_go(lab, "--kernel", kernel)
    updates = 1 if machine in ONE_UPDATE else 2
    root_life.take_over(lab, kernel, root_life.FIRST_TO_TAKE_OVER, updates, labs_factory.phases)
    if machine in ONE_UPDATE:
        Cli(lab).refused(
            ConflictError.exit_code, "no CPU can leave this root", "root", "launch", "--kernel", kernel
        )
    root_life.check_quiet(lab)
    labs_factory.discard(lab)


def blocks(lab: Lab) -> tuple[int, int]:
    """Bytes of a memory block, and how many of them are online."""
    count = "cat block_size_bytes; grep -lx online memory*/state | wc -l"
    size, online = lab.run(["sh", "-c", f"cd /sys/devices/system/memory && {{ {count}; }}"]).stdout.split()
    return int(size, 16), int(online)


def memory_of(cli: Cli, *, root: int) -> int:
    """Bytes of RAM that the only root has, which has this number."""
    (found,) = cli.data("root", "list")  # type: ignore[misc]
    assert found["root"] == root
    return sum(each["size"] for each in found["memory"] if each["name"].startswith("System RAM"))


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_memory_blocks_of_two_gibibytes_come_and_go(labs_factory: Labs) -> None:
    """Proves for a machine with 70 GiB, of which this computer has as much as is written: that a new root
    gets a memory block and gives it back, also when it has crashed; that its kernel has blocks as large when
    it ends high enough; and that it takes over its parent's blocks, one after the other, while its VM runs.
    Not until the last one: each is written to.
    """
    lab = labs_factory.fresh(machine="large", vms=1)
    cli = Cli(lab)
    before = blocks(lab)
    assert before[0] == 2 * GIB
    launch = ("--kernel", "6.12", "--carve", f"2G@{64 * GIB:#x}")

    def one_block_less() -> None:
        assert blocks(lab) == (before[0], before[1] - 1)

    root_life.come_and_go(lab, *launch, while_both=one_block_less)
    assert blocks(lab) == before

    cli.ok("vm", "run", "web", "--memory", "128M")
    cli.ok("update", *launch)
    until = time.monotonic() + ADOPT_S
    while memory_of(cli, root=root_life.FIRST_TO_TAKE_OVER) < 3 * before[0]:
        assert time.monotonic() < until, cli.ok("root", "list")
        time.sleep(1)  # nobody tells of each block
    # Not said of the parent's: it is a kernel of its own that cut its memory into blocks.
    assert blocks(lab)[0] == 2 * GIB
    cli.goes_on("web")
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
