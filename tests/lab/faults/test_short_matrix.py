# SPDX-License-Identifier: GPL-2.0-or-later
"""The most telling faults on real kernels; all of them: `multiroot lab fault matrix`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lab_factory import Labs

from multiroot.faults import catalogue, ground
from multiroot.faults.fault import Fault
from multiroot.faults.ground import Ground
from multiroot.faults.runner import Runner
from multiroot.lab.lab import Options


@pytest.fixture(scope="module")
def runner(labs_factory: Labs) -> Iterator[Runner]:
    """Runs faults in one lab machine, unless a fault does not hold and another has to be booted."""
    labs_factory.make_room()
    options = Options(
        name=f"test-{os.getpid()}-faults", machine=ground.MACHINE, vms=1, vm_memory=ground.VM_MEMORY
    )
    place = Ground(options, options.kernel, labs_factory.phases)
    yield Runner(place, lambda outcome: None)
    place.down()


@pytest.mark.parametrize("fault", catalogue.chosen((), short=True), ids=lambda fault: fault.name)
def test_the_vm_survives_or_is_known_as_lost(runner: Runner, fault: Fault) -> None:
    """Proves for each fault: one copy of the VM runs, or none where what ran it died, and the root says so;
    no tick or byte of the guest is lost; CPUs, memory, extents, taps, processes and vectors are as before;
    the VM goes to the other root and back again."""
    (outcome,) = runner.run([fault])
    assert outcome.problems == []
