# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images: whether a VM has what its kernel needs to come up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kexec.x86.bzimage import BzImage

from multiroot.errors import BadRequestError
from multiroot.units import MIB
from multiroot.vm.definition import OVMF, SEABIOS, VmDefinition
from multiroot.vm.guests import GuestImage, check_ram_for
from multiroot.vm.host import Host
from multiroot.vm.manager import VmManager

SMALL = VmDefinition("vm0", ram_bytes=32 * MIB, guest="tiny").checked()


async def test_ram_in_which_the_kernel_stays_silent_is_refused(
    host: Host, manager: VmManager, guests: Path
) -> None:
    """It prefers to be at 16 MiB and unpacks itself into 20; an initrd is there packed and unpacked."""
    (guests / "tiny/vmlinuz").write_bytes(BzImage(init_size=20 * MIB - 100).build())
    (guests / "tiny/initrd").write_bytes(bytes(1000))
    with pytest.raises(BadRequestError, match=r"does not come up in 38 MiB \(it takes at least 40 MiB\)"):
        await manager.run(replace(SMALL, ram_bytes=38 * MIB))
    assert manager.all() == []
    assert host.arena.entries() == []
    await manager.run(replace(SMALL, ram_bytes=40 * MIB))


async def test_what_is_no_kernel_is_for_the_vmm_to_judge(manager: VmManager, guests: Path) -> None:
    (guests / "tiny/vmlinuz").write_bytes(b"a kernel of another kind")
    await manager.run(SMALL)


def test_uefi_takes_memory_for_itself(guests: Path) -> None:
    (guests / "tiny/vmlinuz").write_bytes(BzImage(init_size=20 * MIB - 100).build())
    (guests / "tiny/initrd").write_bytes(bytes(1000))
    image = GuestImage.of(guests, "tiny")
    check_ram_for(image, 40 * MIB, SEABIOS)
    with pytest.raises(BadRequestError, match=r"does not come up in 119 MiB \(it takes at least 120 MiB\)"):
        check_ram_for(image, 119 * MIB, OVMF)
    check_ram_for(image, 120 * MIB, OVMF)
