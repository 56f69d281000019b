# SPDX-License-Identifier: GPL-2.0-or-later
"""Filesystems on disks of the machine: which one a file is on, and how it goes from one root to the next.

A disk has another name in every kernel (/dev/vda, /dev/nvme0n1), and its filesystem the same UUID in all.
"""

from __future__ import annotations

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

MOUNTS = Path("/proc/self/mountinfo")
DISK_S = 120.0  # a driver may take so long to find its disk
LOOK_S = 0.2  # so often; the drivers' events say nothing of what is on a disk
_TIMEOUT_S = 60.0
_UUID = re.compile(r"[0-9A-Za-z-]{1,64}")
_KIND = re.compile(r"[0-9a-z_]{1,32}")
_OPTIONS = re.compile(r"[0-9A-Za-z_,=.:-]{1,256}")
_BLKID = ("blkid", "-c", "/dev/null")  # what was known of a disk under another kernel counts for nothing
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Filesystem:
    """A mounted filesystem of type `kind`, known by its UUID in every root, and where it is mounted."""

    uuid: str
    kind: str
    point: str
    options: str

    def checked(self) -> Filesystem:
        """Raises BadRequestError for what is none: another root has said it."""
        told = (_UUID, self.uuid), (_KIND, self.kind), (_OPTIONS, self.options)
        if not all(pattern.fullmatch(text) for pattern, text in told) or not _is_plain(self.point):
            raise BadRequestError(f"not a filesystem that could be mounted: {self}")
        return self

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Filesystem:
        """Raises the usual errors for what `to_dict` has not made."""
        return cls(*(str(data[name]) for name in ("uuid", "kind", "point", "options"))).checked()


def _is_plain(point: str) -> bool:
    return point.startswith("/") and os.path.normpath(point) == point and point.isprintable()


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    device: str
    kind: str
    point: str
    options: str


def parse(text: str) -> tuple[Mount, ...]:
    """The mounts in proc_pid_mountinfo(5)'s words, in their order."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, device, *_ = after.split(" ")
        _, _, _, _, point, options, *_ = before.split(" ")
        found.append(Mount(_plain(device), kind, _plain(point), options))
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
    """The filesystem of a file that is here; raises MultirootError if its disk can't be told by its UUID."""
    mount = mount_of(os.path.realpath(path), parse(mounts.read_text()))
    if mount is None:
        raise MultirootError(f"{path} is on no filesystem")
    said = proc.run([*_BLKID, "-o", "value", "-s", "UUID", mount.device], check=False, timeout=_TIMEOUT_S)
    if not (uuid := said.stdout.strip()):
        raise MultirootError(f"{mount.device} has no UUID, by which another root would find it")
    return Filesystem(uuid, mount.kind, mount.point, mount.options).checked()


def leave(filesystem: Filesystem) -> None:
    """Unmount it; raises ConflictError if somebody uses it. Twice is fine."""
    if not _is_mounted(filesystem):
        return
    try:
        proc.run(["umount", filesystem.point], timeout=_TIMEOUT_S)
    except CommandError as error:
        raise ConflictError(
            f"{filesystem.point} is in use: {error.message}",
            "see who uses it: " + proc.hinted(f"fuser -vm {filesystem.point}"),
        ) from error


def leave_all(left: Iterable[Filesystem]) -> None:
    """Unmount them; raises what `leave` raises."""
    # One may be mounted inside of another.
    for filesystem in sorted(left, key=lambda each: each.point, reverse=True):
        leave(filesystem)


def come(filesystem: Filesystem) -> None:
    """Mount it as soon as its disk is there. Twice is fine.

    Raises MultirootError when no disk has it within DISK_S.
    """
    if _is_mounted(filesystem):
        return
    device = _find(filesystem.uuid)
    Path(filesystem.point).mkdir(parents=True, exist_ok=True)
    proc.run(
        ["mount", "-t", filesystem.kind, "-o", filesystem.options, device, filesystem.point],
        timeout=_TIMEOUT_S,
    )


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
