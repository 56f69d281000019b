# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with two host bridges, two NUMA nodes and an IOMMU that the old root's own kernel drives."""

from __future__ import annotations

import pytest
import root_life
from lab_factory import Labs

from multiroot.lab.lab import Lab
from multiroot.lab.machine import SECOND_BRIDGE_BUS, disk_marker

DISKS = {1: "0000:01:00.0", 2: f"0000:{SECOND_BRIDGE_BUS + 1:02x}:00.0"}  # by their numbers in the recipe
# VT-d's global status: translation, queued invalidation, interrupt remapping.
UNIT_STATUS = """
import mmap, os, struct
fd = os.open("/dev/mem", os.O_RDONLY | os.O_SYNC)
with mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ, offset=0xfed90000) as unit:
    print(hex(struct.unpack_from("<I", unit, 0x1c)[0] & 0x86000000))
"""


def first_bytes(lab: Lab, number: int) -> bytes:
    """Of a disk, past every cache: with DMA and interrupts of now."""
    (name,) = lab.run(["sh", "-c", f"ls /sys/bus/pci/devices/{DISKS[number]}/virtio*/block"]).stdout.split()
    done = lab.run(
        [
            "sh",
            "-c",
            f"dd if=/dev/{name} iflag=direct bs=4k count=1 status=none | head -c {len(disk_marker(number))}",
        ]
    )
    return done.stdout.encode()


def memory_by_node(lab: Lab) -> dict[int, int]:
    """MiB of each node that is online."""
    nodes = lab.run(["sh", "-c", "grep -h MemTotal /sys/devices/system/node/node*/meminfo"]).stdout
    return {int(words[1]): int(words[3]) // 1024 for words in map(str.split, nodes.splitlines())}


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_everything_behind_two_bridges_passes_on_and_what_the_old_kernel_turned_on_is_off(
    labs_factory: Labs,
) -> None:
    """Proves that new roots come and go there, one of them by a crash; that a root takes over disks behind
    both host bridges from a root whose kernel had DMA and interrupts go through the IOMMU; that the unit is
    off afterwards, so that neither goes through tables that are zeroed; that memory comes to the node it is
    near; that the next generation has all of it, too; and that a VM lives through it."""
    lab = labs_factory.fresh(kernel="6.12", machine="bridges", vms=1)
    assert "IRQ remapping" in lab.run(["sh", "-c", "dmesg | grep DMAR-IR"]).stdout
    assert lab.run(["ls", "/sys/class/iommu"]).stdout == "dmar0\n"
    groups = [f"/sys/bus/pci/devices/{address}/iommu_group" for address in DISKS.values()]
    assert lab.run(["ls", "-d", *groups]).returncode == 0
    before = memory_by_node(lab)
    root_life.come_and_go(lab, "--kernel", "6.12")

    def check_each() -> None:
        check_has_all(lab, before)

    root_life.take_over(lab, "6.12", root_life.FIRST_TO_TAKE_OVER, 2, labs_factory.phases, check_each)
    root_life.check_quiet(lab)
    labs_factory.discard(lab)


def check_has_all(lab: Lab, before: dict[int, int]) -> None:
    """The only root has both disks and the memory of both nodes, and nothing goes through the IOMMU."""
    assert lab.run(["python3", "-c", UNIT_STATUS]).stdout == "0x0\n"
    for number in DISKS:
        assert first_bytes(lab, number) == disk_marker(number)
    after = memory_by_node(lab)
    assert set(after) == set(before) == {0, 1}
    # The first carve is node 1's, and what the first root had is node 0's but for a little.
    assert before[0] > before[1]
    assert after[0] > before[0] * 3 // 4
