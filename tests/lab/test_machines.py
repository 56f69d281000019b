# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that people have and the usual lab machine is not: the whole life of roots on each of them."""

from __future__ import annotations

import pytest
from cli_driver import Cli
from lab_factory import Labs

from multiroot.demo.generations import Generation, Generations
from multiroot.units import MIB

# The kernel of all roots, and what the first one says of itself where a recipe is what it claims to be.
MACHINES = {
    "x2apic": ("6.12", ("x2apic enabled", "Enabled IRQ remapping in x2apic mode")),
    "amd-iommu": ("6.12-full", ("AMD-Vi: Interrupt remapping enabled", "AMD-Vi: Extended features")),
    "one-cpu": ("6.12", ("smp: Brought up 1 node, 2 CPUs",)),
    "legacy-free": ("6.12", ("i8042: PNP: No PS/2 controller found", "Unable to calibrate against PIT")),
    "no-hpet": ("6.12", ("i8042: PNP: No PS/2 controller found", "calibration using PIT")),
}
COMPLAINTS = ("WARNING:", "BUG:", "Oops", "DMAR: [DMA", "IO_PAGE_FAULT", "INTR-REMAP:")


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("machine", MACHINES)
def test_roots_come_and_go_on_it(labs_factory: Labs, machine: str) -> None:
    """Proves for a machine that a new root is launched there, takes a VM and gives it back, is released, is
    launched again and crashes; that the old root retires and the new one takes all; that the next generation
    does the same; that the VM lives through it; and that nothing has reset the machine."""
    kernel, says = MACHINES[machine]
    lab = labs_factory.fresh(kernel=kernel, machine=machine, vms=1)
    log = lab.run(["dmesg"]).stdout
    for words in says:
        assert words in log
    cli = Cli(lab)
    cpus = lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout
    cli.ok("vm", "run", "web", "--memory", "128M")
    for _ in range(2):
        cli.ok("root", "launch", "--kernel", kernel)
        cli.ok("handoff", "web")
        cli.ok("handoff", "web", "--to", "old")
        cli.ok("root", "release")
    cli.ok("root", "launch", "--kernel", kernel)
    cli.crash_new_root()
    cli.ok("root", "release")
    assert lab.run(["cat", "/sys/devices/system/cpu/online"]).stdout == cpus
    cli.ok("vm", "stop", "web")

    seen: list[Generation] = []
    Generations(lab, 128 * MIB, labs_factory.phases).run([kernel, kernel], seen.append)
    assert [generation.inventory.root for generation in seen] == [5, 6]
    log = lab.run(["dmesg"]).stdout
    assert not [line for line in log.splitlines() if any(words in line for words in COMPLAINTS)]
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
