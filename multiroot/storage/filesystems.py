# SPDX-License-Identifier: GPL-2.0-or-later
"""Filesystems on disks of the machine: which one a file is on, and how it goes from one root to the next.

A disk has another name in every kernel (/dev/vda, /dev/nvme0n1), and its filesystem the same UUID in all.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.errors import BadRequestError, CommandError, ConflictError, MultirootError

log = logging.getLogger("multirootd")

MOUNTS = Path("/proc/self/mountinfo")
BLOCKS = Path("/sys/class/block")
DISK_S = 120.0  # a driver may take so long to find its disk
LOOK_S = 0.2  # so often; the drivers' events say nothing of what is on a disk
_TIMEOUT_S = 60.0
_UUID = re.compile(r"[0-9A-Za-z-]{1,64}")
_KIND = re.compile(r"[0-9a-z_]{1,32}")
_OPTIONS = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_,=.:/-]{0,511}")
_IN_MEMORY = re.compile(r"/(ndbus\d+/|ram\d|zram\d)")  # in a block device's path below /sys
_ON_PCI = "/pci"
_BLKID = ("blkid", "-c", "/dev/null")  # what was known of a disk under another kernel counts for nothing
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Filesystem:
    """A mounted filesystem of type `kind`, known by its UUID in every root, and where it is mounted.

    `options` are those of the mount, and then those of the filesystem itself, of which another kernel may not
    know all.
    """

    uuid: str
    kind: str
    point: str
    options: str
    own_options: str = ""

    def checked(self) -> Filesystem:
        """Raises BadRequestError for what is none: another root has said it."""
        told = [(_UUID, self.uuid), (_KIND, self.kind), (_OPTIONS, self.options)]
        if self.own_options:
            told.append((_OPTIONS, self.own_options))
        if not all(pattern.fullmatch(text) for pattern, text in told) or not _is_plain(self.point):
            raise BadRequestError(f"not a filesystem that could be mounted: {self}")
        return self

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Filesystem:
        """Raises the usual errors for what `to_dict` has not made."""
        uuid, kind, point, options = (str(data[name]) for name in ("uuid", "kind", "point", "options"))
        return cls(uuid, kind, point, options, str(data.get("own_options", ""))).checked()


def _is_plain(point: str) -> bool:
    return point.startswith("/") and os.path.normpath(point) == point and point.isprintable()


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo. `root` is what of the filesystem is mounted: "/" is all of it."""

    device: str
    kind: str
    point: str
    options: str
    own_options: str = ""
    root: str = "/"

    @property
    def writable(self) -> bool:
        """Whether the filesystem itself may be written to, here or by another mount of it."""
        return "ro" not in self.own_options.split(",")


def parse(text: str) -> tuple[Mount, ...]:
    """The mounts in proc_pid_mountinfo(5)'s words, in their order."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, device, own, *_ = after.split(" ")
        _, _, _, root, point, options, *_ = before.split(" ")
        found.append(Mount(_plain(device), kind, _plain(point), options, own, _plain(root)))
    return tuple(found)


def _plain(word: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), word)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that a path, without symbolic links, is below; of several at one place the last."""
    best: Mount | None = None
    for mount in mounts:
        below = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if below and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def is_here(path: str, mounts: Path = MOUNTS) -> bool:
    """Whether there is such a file, on a disk of the machine that this root has."""
    real = os.path.realpath(path)
    try:
        kind = Path(real).stat().st_mode
    except OSError:
        return False
    mount = mount_of(real, parse(mounts.read_text()))
    return stat.S_ISREG(kind) and mount is not None and mount.device.startswith("/dev/")


def of(path: str, mounts: Path = MOUNTS) -> Filesystem:
    """The filesystem of a file that is here; raises ConflictError if another root would not find the file:
    its disk has no UUID, or only a part of the filesystem is mounted there.
    """
    mount = mount_of(os.path.realpath(path), parse(mounts.read_text()))
    if mount is None:
        raise ConflictError(f"{path} is on no filesystem")
    if mount.root != "/":
        raise ConflictError(
            f"{path} is on a part of a filesystem: {mount.point} is {mount.root} of {mount.device}",
            f"name the file by a mount of all of it: mkdir -p /mnt/disk && mount {mount.device} /mnt/disk",
        )
    if found := _known(mount):
        return found
    raise ConflictError(f"{mount.device} has no UUID, by which another root would find it")


def _known(mount: Mount) -> Filesystem | None:
    """None for one whose disk has no UUID."""
    said = proc.run([*_BLKID, "-o", "value", "-s", "UUID", mount.device], check=False, timeout=_TIMEOUT_S)
    uuid = said.stdout.strip()
    if not uuid:
        return None
    own = mount.own_options if _OPTIONS.fullmatch(mount.own_options) else ""
    return Filesystem(uuid, mount.kind, mount.point, mount.options, own).checked()


def writable(mounts: Iterable[Mount], blocks: Path = BLOCKS) -> dict[Mount, str]:
    """Those of what may have to be written before this root ends, in the order in which they came, and where
    the kernel has their disks below /sys. What lies in memory stays as it is, and nobody can unmount what the
    root itself runs from.
    """
    found = {each: _place(each, blocks) for each in mounts if each.writable and each.point != "/"}
    return {mount: place for mount, place in found.items() if place and not _IN_MEMORY.search(place)}


def of_machine(mounts: Path = MOUNTS, blocks: Path = BLOCKS) -> tuple[Filesystem, ...]:
    """Whole filesystems that are mounted and may be written to, on disks that the next root gets, too. Those
    that it could not mount are left out, and the log says so.
    """
    found = []
    for mount, place in writable(parse(mounts.read_text()), blocks).items():
        if mount.root != "/" or _ON_PCI not in place:
            continue
        try:
            known = _known(mount)
        except BadRequestError as error:
            log.warning("%s does not go along: %s", mount.point, error)
        else:
            found += [known] if known else []
    return tuple(found)


def _place(mount: Mount, blocks: Path) -> str:
    """Where the kernel has the mount's disk below /sys; "" for what is on no disk."""
    if not mount.device.startswith("/dev/"):
        return ""
    return os.path.realpath(blocks / Path(mount.device).resolve().name)


def leave(point: str) -> None:
    """Unmount what is there; raises ConflictError if somebody uses it."""
    try:
        proc.run(["umount", point], timeout=_TIMEOUT_S)
    except CommandError as error:
        raise ConflictError(
            f"{point} is in use: {error.message}",
            "see who uses it: " + proc.hinted(f"fuser -vm {point}"),
        ) from error


def leave_all(left: Iterable[Filesystem], mounts: Path = MOUNTS, blocks: Path = BLOCKS) -> None:
    """Unmount these, and all else that may have to be written before this root ends: the disks' drivers let
    go afterwards. Twice is fine. Raises what `leave` raises.
    """
    points = {each.point for each in left}
    here = parse(mounts.read_text())
    leaving = {*writable(here, blocks), *(mount for mount in here if mount.point in points)}
    # What was mounted last may be inside of what was there before, or be a file there.
    for mount in reversed(here):
        if mount in leaving:
            leave(mount.point)


def come(filesystem: Filesystem) -> None:
    """Mount it as soon as its disk is there. Twice is fine.

    Raises MultirootError when no disk has it within DISK_S.
    """
    if _is_mounted(filesystem):
        return
    device = _find(filesystem.uuid)
    Path(filesystem.point).mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", filesystem.kind, device, filesystem.point, "-o"]
    if filesystem.own_options:
        options = f"{filesystem.options},{filesystem.own_options}"
        said = proc.run([*mount, options], check=False, timeout=_TIMEOUT_S)
        if not said.returncode:
            return
        log.warning("%s is mounted without %s: %s", filesystem.point, filesystem.own_options, said.stderr)
    proc.run([*mount, filesystem.options], timeout=_TIMEOUT_S)


def _is_mounted(filesystem: Filesystem) -> bool:
    return any(mount.point == filesystem.point for mount in parse(MOUNTS.read_text()))


def _find(uuid: str) -> str:
    until = time.monotonic() + DISK_S
    while True:
        try:
            found = proc.run([*_BLKID, "-U", uuid], timeout=_TIMEOUT_S).stdout.strip()
        except CommandError:
            found = ""
        if found:
            return found
        if time.monotonic() > until:
            raise MultirootError(
                f"no disk of this root has the filesystem {uuid}",
                "mount it when it is there, and VMs go on: busybox mount",
            )
        time.sleep(LOOK_S)
