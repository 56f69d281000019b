# SPDX-License-Identifier: GPL-2.0-or-later
"""GRUB on a disk with GPT, written into a file: no loop device, and no GRUB in the guest.

A BIOS runs the disk's first sector, boot.img. That loads the first sector of the core image (diskboot.img)
from the BIOS boot partition, and this loads the rest by its list of blocks. grub-bios-setup would fill both
in; where the fields lie is in GRUB's include/grub/i386/pc/boot.h and include/grub/offsets.h. UEFI runs a file
of its own partition. Both have all modules in them that the disk's grub.cfg needs.
"""

from __future__ import annotations

import struct
from pathlib import Path

from multiroot import arch, proc
from multiroot.errors import MultirootError
from multiroot.lab import roots

SECTOR = 512
SIGNATURE = b"\x55\xaa"  # at the end of a boot sector

# In boot.img.
_PARAMETERS = slice(0x03, 0x5A)  # of a file system in this place, which belong to the disk
_CORE_SECTOR_AT = 0x5C  # 64 bits: where the core image is
_DRIVE_AT = 0x64
_ANY_DRIVE = 0xFF  # the one that the BIOS names
_DRIVE_CHECK_AT = 0x66  # two bytes, a jump over what mends a BIOS that names a wrong drive
_NO_JUMP = b"\x90\x90"
_CODE_END = 0x1B8  # from here on the disk's id and its MBR partition table

# In the core image, at the end of its first sector: sector (64 bits), count and segment (16 bits each).
_BLOCK_LIST_AT = SECTOR - 12

_COMMON = (
    "boot configfile echo ext2 fat halt linux ls normal part_gpt part_msdos reboot "
    "search search_fs_uuid serial sleep terminal test"
)
BIOS_MODULES = f"{_COMMON} biosdisk"
EFI_MODULES = f"{_COMMON} efi_gop efi_uga"
_TIMEOUT_S = 120.0


def boot_sector(disk: bytes, boot: bytes, core_sector: int) -> bytes:
    """The disk's first sector `disk` with GRUB's `boot` (boot.img) in it, for a core image at that sector.

    What is the disk's stays: its partition table and a file system's parameters. Pure; raises MultirootError.
    """
    for what, data in (("the first sector", disk), ("boot.img", boot)):
        if len(data) != SECTOR or not data.endswith(SIGNATURE):
            raise MultirootError(f"{what} is no boot sector")
    made = bytearray(boot)
    made[_PARAMETERS] = disk[_PARAMETERS]
    made[_CODE_END:] = disk[_CODE_END:]
    struct.pack_into("<Q", made, _CORE_SECTOR_AT, core_sector)
    made[_DRIVE_AT] = _ANY_DRIVE
    made[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + len(_NO_JUMP)] = _NO_JUMP
    return bytes(made)


def placed_core(core: bytes, sector: int, room: int) -> bytes:
    """A core image for this sector of a disk, where `room` bytes are for it. It is in one piece.

    grub-mkimage has filled in how long it is, and where in memory it goes. Pure; raises MultirootError.
    """
    if len(core) <= SECTOR:
        raise MultirootError("GRUB's core image is nothing but its first sector")
    if len(core) > room:
        raise MultirootError(f"GRUB's core image has {len(core)} bytes, there is room for {room}")
    made = bytearray(core)
    _, count, segment = struct.unpack_from("<QHH", made, _BLOCK_LIST_AT)
    if count * SECTOR < len(core) - SECTOR:
        raise MultirootError(f"GRUB's core image loads {count} sectors of itself, it has more")
    struct.pack_into("<QHH", made, _BLOCK_LIST_AT, sector + 1, count, segment)
    return bytes(made)


def make_bios(tools: Path, early: Path, out: Path, log: Path) -> tuple[bytes, bytes]:
    """boot.img and a core image that runs the commands in `early`; `out` is a file to work with."""
    target = arch.current().disk.grub_bios
    _make(tools, target, early, BIOS_MODULES, out, log)
    return (tools / "usr/lib/grub" / target / "boot.img").read_bytes(), out.read_bytes()


def make_efi(tools: Path, early: Path, out: Path, log: Path) -> None:
    """The program for UEFI in the file `out`, which runs the commands in `early`."""
    _make(tools, arch.current().disk.grub_efi, early, EFI_MODULES, out, log)


def _make(tools: Path, target: str, early: Path, modules: str, out: Path, log: Path) -> None:
    options: list[proc.Arg] = ["-d", tools / "usr/lib/grub" / target, "-O", target, "-c", early, "-o", out]
    argv = [*roots.loader_argv(tools, "bin/grub-mkimage"), *options, "-p", "/boot/grub"]
    proc.run([*argv, *modules.split()], log=log, timeout=_TIMEOUT_S)
