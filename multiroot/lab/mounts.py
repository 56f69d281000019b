# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts that a killed build has left below its folder. What removes the folder would go through them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from multiroot import proc

_PLACE = 4  # of a line's fields, see proc_pid_mountinfo(5)
_TIMEOUT_S = 30.0


def below(mountinfo: str, folder: Path) -> list[Path]:
    """Where something is mounted in `folder` or below it, the last one first. Pure."""
    places = [Path(_plain(line.split()[_PLACE])) for line in mountinfo.splitlines()]
    return [place for place in reversed(places) if place.is_relative_to(folder)]


def detach(folder: Path) -> None:
    """Unmount all of it; raises CommandError when something stays."""
    folder = Path(os.path.realpath(folder))
    for place in below(Path("/proc/self/mountinfo").read_text(), folder):
        proc.run(["umount", place], timeout=_TIMEOUT_S)


def _plain(place: str) -> str:
    """Spaces and the like stand there as octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), os.fsencode(place)))
