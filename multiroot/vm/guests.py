# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images of the system image: a folder for each, with a kernel and an initrd."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from multiroot import json_files
from multiroot.arch import current
from multiroot.errors import BadRequestError, ConflictError
from multiroot.ranges import align_up
from multiroot.units import HUGE_PAGE, MIB, format_size
from multiroot.vm.definition import DIRECT, OVMF, VmDefinition

GUESTS = Path("/usr/lib/multiroot/guests")
# Bytes. A kernel that takes 80 MiB came up by UEFI in 146 MiB; in 144 its stub had no room to unpack it.
UEFI_TAKES = 66 * MIB
NEEDS = "needs.json"  # beside a guest image's kernel


@dataclass(frozen=True)
class Needs:
    """RAM, in bytes, that a guest image takes to run, beyond what its kernel takes to unpack itself, which is
    free again by then; nobody knows it of a VM whose command line has the parameter `unless`.
    """

    more: int = 0
    each_cpu: int = 0  # after the first
    unless: str = ""

    def of(self, definition: VmDefinition) -> int:
        """What is known of this VM."""
        if any(word.partition("=")[0] == self.unless for word in definition.append.split()):
            return 0
        return align_up(self.more + (definition.cpus - 1) * self.each_cpu, HUGE_PAGE)


@dataclass(frozen=True)
class GuestImage:
    """The files that a guest is started from; None for a kernel that needs no initrd."""

    kernel: Path
    initrd: Path | None

    @classmethod
    def of(cls, guests: Path, name: str) -> GuestImage:
        """Image `name` below the folder `guests`, whether it is there or not."""
        return cls(guests / name / "vmlinuz", guests / name / "initrd")

    @classmethod
    def of_user(cls, definition: VmDefinition, folder: Path) -> GuestImage:
        """Where a VM's own files are put in its folder when its VMM starts."""
        return cls(folder / "vmlinuz", folder / "initrd" if definition.initrd else None)

    def provide(self, kernel: bytes, initrd: bytes) -> None:
        """Put them there; raises ConflictError if there is no room."""
        try:
            self.kernel.write_bytes(kernel)
            if self.initrd:
                self.initrd.write_bytes(initrd)
        except OSError as error:
            raise ConflictError(
                f"cannot write the guest's kernel to {self.kernel.parent}: {error.strerror}"
            ) from error


def check_image(guests: Path, name: str) -> None:
    """Raises BadRequestError if there is no image `name` below the folder `guests`."""
    image = GuestImage.of(guests, name)
    if not all(file and file.is_file() for file in (image.kernel, image.initrd)):
        known = sorted(path.name for path in guests.glob("*")) if guests.is_dir() else []
        raise BadRequestError(
            f"no guest image {name!r} in {guests}", f"there are: {', '.join(known) or 'none'}"
        )


def check_ram_for(image: GuestImage, definition: VmDefinition) -> None:
    """Raises BadRequestError if the guest can't come up in the VM's RAM: it would say nothing, or panic."""
    stamps = tuple(file.stat().st_mtime_ns for file in (image.kernel, image.initrd) if file)
    least = _least_ram_of(image, stamps)
    runs = least + _needs(image).of(definition) if least else 0
    what = f"guest image {image.kernel.parent.name!r}"
    _check_ram(what, max(_by(definition.firmware, least), runs), definition.ram_bytes)


def check_kernel(kernel: bytes, initrd_size: int, ram: int, firmware: str = DIRECT) -> None:
    """Raises BadRequestError for a user's file that is no kernel, or does not come up in `ram` bytes."""
    check_head(kernel[: current().kernel.head])
    _check_ram("the kernel", _by(firmware, _least_ram(kernel, initrd_size)), ram)


def check_head(head: bytes) -> None:
    """Raises BadRequestError for the beginning of a file that is no kernel."""
    try:
        current().kernel.release(head)
    except BadRequestError as error:
        raise BadRequestError(f"this is no kernel that a VM starts: {error.message}", error.hint) from error


def _by(firmware: str, least: int) -> int:
    """What a kernel takes to unpack itself where that firmware has left it some RAM; 0 if nobody knows."""
    return least + UEFI_TAKES if least and firmware == OVMF else least


def _check_ram(what: str, least: int, ram: int) -> None:
    if ram < least:
        raise BadRequestError(
            f"{what} does not come up in {format_size(ram)}", f"it takes at least {format_size(least)}"
        )


def _needs(image: GuestImage) -> Needs:
    found = json_files.read(image.kernel.with_name(NEEDS), dict, lambda data: Needs(**data))
    return found or Needs()


@lru_cache(maxsize=16)
def _least_ram_of(image: GuestImage, _stamps: tuple[int, ...]) -> int:
    assert image.initrd
    return _least_ram(image.kernel.read_bytes(), image.initrd.stat().st_size)


def _least_ram(kernel: bytes, initrd_size: int) -> int:
    """0 for what is no kernel of this machine's: the VMM knows what to do with it."""
    # Here: it is a sixteenth of what an agent imports, and a new root's agent is waited for.
    from multiroot.kexec.target import target

    try:
        image = target().read_image(kernel)
    except BadRequestError:
        return 0
    return target().least_ram(image, initrd_size)


def guest_command_line(definition: VmDefinition) -> str:
    """The guest kernel's command line; guest image NAME or NAME-VARIANT takes its addresses as NAME.ip=. Of a
    user's kernel, nobody here knows how it takes one.
    """
    if definition.kernel:
        return " ".join(filter(None, ("console=ttyS0", definition.append)))
    words = ["console=ttyS0", "quiet"]
    if addresses := _addresses(definition):
        words.append(f"{definition.guest.partition('-')[0]}.ip={addresses}")
    if definition.append:
        words.append(definition.append)
    return " ".join(words)


def _addresses(definition: VmDefinition) -> str:
    """Of all its cards that have one. Of several cards each is named: a guest may count them otherwise."""
    if len(definition.cards) < 2:
        return definition.card.address
    return ",".join(f"{card.address}@{card.mac}" for card in definition.cards if card.address)
