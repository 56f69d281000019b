# SPDX-License-Identifier: GPL-2.0-or-later
"""Persistent memory of this root that is a block device, by its physical address."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import BadRequestError, ConflictError

SYS_BLOCK = Path("/sys/block")
DEV = Path("/dev")
_SECTOR = 512  # of /sys/block, whatever the device has


@dataclass(frozen=True)
class Pmem:
    """`address` (physical) and `size` in bytes; `node` is what it is called in this root alone."""

    address: int
    size: int
    read_only: bool
    node: Path


def devices(sys_block: Path = SYS_BLOCK, dev: Path = DEV) -> list[Pmem]:
    """All of them, by address."""
    found = []
    for folder in sorted(sys_block.glob("pmem*")):
        try:
            address = int((folder / "device/resource").read_text(), 16)
            size = int((folder / "size").read_text()) * _SECTOR
            read_only = (folder / "ro").read_text().strip() == "1"
        except (OSError, ValueError):
            # It went away, or is divided further, and then its address is not that of its first byte.
            continue
        found.append(Pmem(address, size, read_only, dev / folder.name))
    return sorted(found, key=lambda each: each.address)


def find(address: int, *, writable: bool, sys_block: Path = SYS_BLOCK, dev: Path = DEV) -> Pmem:
    """The one that begins there, which nobody here has mounted.

    Raises BadRequestError if there is none, or it can't be written to and is to be, ConflictError if it is in
    use.
    """
    for each in devices(sys_block, dev):
        if each.address == address:
            break
    else:
        raise BadRequestError(
            f"this root has no persistent memory at {address:#x}", "`multiroot disk list` shows what it has"
        )
    # First: what can't be written to is most often the system image, which all roots have mounted.
    if why := unusable(each.node):
        raise ConflictError(
            f"{each.node} can't be a VM's disk: {why}", "`multiroot disk list` shows which can"
        )
    if writable and each.read_only:
        raise BadRequestError(f"{each.node} can't be written to", "add ,ro to it, or ,bus=cd")
    return each


def unusable(node: Path) -> str:
    """Why a device can't be a VM's disk just now, by what the kernel says; "" if it can."""
    try:
        # Of a block device, O_EXCL asks whether the kernel itself has it: mounted, or a part of something.
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return (
            "this root has it mounted, or uses it otherwise"
            if error.errno == errno.EBUSY
            else str(error.strerror)
        )
    return ""
