# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images of the system image: a folder for each, with a kernel and an initrd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import BadRequestError
from multiroot.vm.definition import VmDefinition

GUESTS = Path("/usr/lib/multiroot/guests")


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


def guest_command_line(definition: VmDefinition) -> str:
    """The guest kernel's command line; guest image NAME or NAME-VARIANT takes its address as NAME.ip=."""
    words = ["console=ttyS0", "quiet"]
    if address := definition.card.address:
        words.append(f"{definition.guest.partition('-')[0]}.ip={address}")
    if definition.append:
        words.append(definition.append)
    return " ".join(words)
