# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images of the system image: a folder for each, with a kernel and an initrd."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from multiroot.errors import BadRequestError
from multiroot.kexec.target import target
from multiroot.units import MIB, format_size
from multiroot.vm.definition import DIRECT, OVMF, VmDefinition

GUESTS = Path("/usr/lib/multiroot/guests")
# Bytes. A kernel that takes 80 MiB came up by UEFI in 160 MiB; in 128 its stub had no room to unpack it.
UEFI_TAKES = 80 * MIB


@dataclass(frozen=True)
class GuestImage:
    """The files that a guest is started from."""

    kernel: Path
    initrd: Path

    @classmethod
    def of(cls, guests: Path, name: str) -> GuestImage:
        """Image `name` below the folder `guests`, whether it is there or not."""
        return cls(guests / name / "vmlinuz", guests / name / "initrd")


def check_image(guests: Path, name: str) -> None:
    """Raises BadRequestError if there is no image `name` below the folder `guests`."""
    image = GuestImage.of(guests, name)
    if not (image.kernel.is_file() and image.initrd.is_file()):
        known = sorted(path.name for path in guests.glob("*")) if guests.is_dir() else []
        raise BadRequestError(
            f"no guest image {name!r} in {guests}", f"there are: {', '.join(known) or 'none'}"
        )


def check_ram_for(image: GuestImage, ram: int, firmware: str = DIRECT) -> None:
    """Raises BadRequestError if the guest's kernel can't come up in `ram` bytes: it would say nothing."""
    stamps = tuple(file.stat().st_mtime_ns for file in (image.kernel, image.initrd))
    least = _least_ram(image, stamps)
    if least and firmware == OVMF:
        least += UEFI_TAKES
    if ram < least:
        raise BadRequestError(
            f"the kernel of guest image {image.kernel.parent.name!r} does not come up in {format_size(ram)}",
            f"it takes at least {format_size(least)}",
        )


@lru_cache(maxsize=16)
def _least_ram(image: GuestImage, _stamps: tuple[int, ...]) -> int:
    """0 for what is no kernel of this machine's: the VMM knows what to do with it."""
    try:
        kernel = target().read_image(image.kernel.read_bytes())
    except BadRequestError:
        return 0
    return target().least_ram(kernel, image.initrd.stat().st_size)


def guest_command_line(definition: VmDefinition) -> str:
    """The guest kernel's command line; guest image NAME or NAME-VARIANT takes its address as NAME.ip=."""
    words = ["console=ttyS0", "quiet"]
    if address := definition.card.address:
        words.append(f"{definition.guest.partition('-')[0]}.ip={address}")
    if definition.append:
        words.append(definition.append)
    return " ".join(words)
