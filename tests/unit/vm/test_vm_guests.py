# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images: whether a VM has what its kernel needs to come up."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from kexec.x86.bzimage import BzImage

from multiroot.errors import BadRequestError, MultirootError
from multiroot.units import KIB, MIB
from multiroot.vm.definition import OVMF, SEABIOS, VmDefinition
from multiroot.vm.guests import GuestImage, Needs, check_ram_for
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


def tiny(guests: Path) -> GuestImage:
    """Its kernel takes 40 MiB to unpack itself."""
    (guests / "tiny/vmlinuz").write_bytes(BzImage(init_size=20 * MIB - 100).build())
    (guests / "tiny/initrd").write_bytes(bytes(1000))
    return GuestImage.of(guests, "tiny")


def check_least(image: GuestImage, least: int, **fields: object) -> None:
    """So many MiB are taken, and 2 less are refused, with a word of these."""
    definition = replace(SMALL, **fields)  # type: ignore[arg-type]
    says = rf"guest image 'tiny' does not come up in {least - 2} MiB \(it takes at least {least} MiB\)"
    with pytest.raises(BadRequestError, match=says):
        check_ram_for(image, replace(definition, ram_bytes=(least - 2) * MIB))
    check_ram_for(image, replace(definition, ram_bytes=least * MIB))


def test_uefi_takes_memory_for_itself(guests: Path) -> None:
    check_least(tiny(guests), 40, firmware=SEABIOS)
    check_least(tiny(guests), 40 + 66, firmware=OVMF)


def test_a_guest_takes_memory_to_run(guests: Path) -> None:
    """UEFI's is free again by then. A parameter may have it take less, or more."""
    image = tiny(guests)
    needs = Needs(more=16 * MIB, each_cpu=880 * KIB, unless="tiny.region")
    (guests / "tiny/needs.json").write_text(json.dumps(asdict(needs)))
    check_least(image, 56)
    check_least(image, 58, cpus=2)
    check_least(image, 64, cpus=8, append="tiny.regions=4 tiny.period=10")
    check_least(image, 40, append="quiet tiny.region=4")
    check_least(image, 40 + 66, firmware=OVMF)


def test_a_damaged_file_of_needs_is_named(guests: Path) -> None:
    for text in ("{", "[]", '{"fewer": 1}'):
        (guests / "tiny/needs.json").write_text(text)
        with pytest.raises(MultirootError, match=r"needs\.json"):
            check_ram_for(tiny(guests), SMALL)
