# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian from its disk works for people outside on its way from kernel to kernel; none of them notices."""

from __future__ import annotations

import pytest
from lab_factory import Labs

from multiroot.demo import debian
from multiroot.lab import lab
from multiroot.units import MIB


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kernels", [("6.12", "7.x", "6.12")], ids="-".join)
def test_debian_at_work_goes_from_kernel_to_kernel(labs_factory: Labs, kernels: tuple[str, ...]) -> None:
    """Proves that one SSH session, one SQL connection, pings and a disk that is written and read back go on
    through handoffs there and back and two updates with retire; that every acknowledged transaction is there
    once; that the guest has no complaint and its file system is clean."""
    labs_factory.make_room()
    machine = lab.Options(name="test-debian", kernel="6.12", kernels=kernels, vms=1, vm_memory=512 * MIB)
    report = debian.run(debian.Options(machine, kernels, 512 * MIB), labs_factory.phases)
    assert [check for check in report.claims if not check.held] == []
