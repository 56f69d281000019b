# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with two host bridges, two NUMA nodes and an IOMMU that the old root's own kernel drives."""

from __future__ import annotations

import pytest
from lab_factory import Labs

from multiroot.demo.generations import Generation, Generations
from multiroot.lab.lab import Lab
from multiroot.lab.machine import SECOND_BRIDGE_BUS, disk_marker
from multiroot.units import MIB

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
@pytest.mark.timeout(1200)
def test_everything_behind_two_bridges_passes_on_and_what_the_old_kernel_turned_on_is_off(
    labs_factory: Labs,
) -> None:
    """Proves that a root takes over disks behind both host bridges from a root whose kernel had DMA and
    interrupts go through the IOMMU; that the unit is off afterwards, so that neither goes through tables that
    are zeroed; that memory comes to the node it is near; and that a VM lives through it."""
    lab = labs_factory.fresh(kernel="6.12", machine="bridges", vms=1)
    assert "IRQ remapping" in lab.run(["sh", "-c", "dmesg | grep DMAR-IR"]).stdout
    assert lab.run(["ls", "/sys/class/iommu"]).stdout == "dmar0\n"
    groups = [f"/sys/bus/pci/devices/{address}/iommu_group" for address in DISKS.values()]
    assert lab.run(["ls", "-d", *groups]).returncode == 0
    before = memory_by_node(lab)

    seen: list[Generation] = []
    Generations(lab, 128 * MIB, labs_factory.phases).run(["6.12"], seen.append)

    assert [generation.inventory.root for generation in seen] == [2]
    assert lab.run(["python3", "-c", UNIT_STATUS]).stdout == "0x0\n"
    for number in DISKS:
        assert first_bytes(lab, number) == disk_marker(number)
    after = memory_by_node(lab)
    assert set(after) == set(before) == {0, 1}
    # The carve is node 1's, and what the old root had is node 0's but for a little.
    assert before[0] > before[1]
    assert after[0] > before[0] * 3 // 4
    log = lab.run(["dmesg"]).stdout.splitlines()
    assert not [line for line in log if any(word in line for word in ("WARNING:", "BUG:", "Oops"))]
    assert lab.state.resets() == 0
    labs_factory.discard(lab)
