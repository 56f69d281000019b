# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian from its disk works for people outside on its way from kernel to kernel; none of them notices."""

from __future__ import annotations

import pytest
from lab_factory import Labs

from multiroot.cli.demo_debian import print_report
from multiroot.demo import debian
from multiroot.lab import lab
from multiroot.units import MIB


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("disk", "visited", "kernels"),
    [(disk, "6.12", ("7.x", "6.12")) for disk in ("pmem", "nbd", "local")],
    ids=["pmem", "nbd", "local"],
)
def test_debian_at_work_goes_from_kernel_to_kernel(
    labs_factory: Labs, disk: str, visited: str, kernels: tuple[str, ...]
) -> None:
    """Proves that one SSH session, one SQL connection, pings and a disk that is written and read back go on
    through updates with retire, and handoffs there and back, by each way in which roots reach a disk; that
    every acknowledged transaction is there once; that the guest has no complaint and its file system is
    clean."""
    labs_factory.make_room()
    names = tuple(filter(None, (visited, *kernels)))
    machine = lab.Options(name="test-debian", kernel="6.12", kernels=names, vms=1, vm_memory=512 * MIB)
    options = debian.Options(machine, kernels, 512 * MIB, visited=visited, disk=disk)
    report = debian.run(options, labs_factory.phases)
    print_report(report)  # for who looks on: pytest -s
    assert [check for check in report.claims if not check.held] == []
