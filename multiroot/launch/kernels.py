# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the files of the kernel to load."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from multiroot import arch
from multiroot.errors import BadRequestError

KERNELS = Path("/usr/lib/multiroot/kernels")


@dataclass(frozen=True)
class KernelFiles:
    """`initrd` is None for a kernel that needs none."""

    kernel: Path
    initrd: Path | None

    def read(self) -> tuple[bytes, bytes]:
        """Contents of both (empty without an initrd); BadRequestError when one can not be read."""
        return _read(self.kernel), _read(self.initrd) if self.initrd else b""


def find(name: str, initrd: str = "", kernels: Path = KERNELS) -> KernelFiles:
    """Files for `name`: that of a folder in `kernels`, or the path of a kernel file.

    A named kernel has its initrd beside it; `initrd`, a path, goes before that. BadRequestError
    when a file is missing.
    """
    own = kernels / name
    if "/" not in name and _is_file(own / "vmlinuz"):
        beside = own / "initrd"
        return KernelFiles(
            own / "vmlinuz", _existing(initrd) if initrd else beside if _is_file(beside) else None
        )
    if "/" not in name and not _is_file(Path(name)):
        known = ", ".join(sorted(folder.name for folder in kernels.glob("*/"))) or "none"
        raise BadRequestError(
            f"there is no kernel {name!r}",
            f"installed: {known}; or give the path of a {arch.current().kernel.name}",
        )
    return KernelFiles(_existing(name), _existing(initrd) if initrd else None)


def example(kernels: Path = KERNELS) -> str:
    """A name for a command in a hint: one that `find` finds, if there is one."""
    names = sorted(folder.name for folder in kernels.glob("*/") if _is_file(folder / "vmlinuz"))
    return names[-1] if names else "FILE"


def config_hz(release: str, kernel: Path, top: Path = Path("/")) -> int:
    """CONFIG_HZ of a kernel from a configuration file that its package left, 0 when there is none."""
    places = (
        kernel.with_name("config"),
        kernel.with_name(f"config-{release}"),
        top / f"boot/config-{release}",
        top / f"usr/lib/modules/{release}/config",
    )
    for place in places:
        if place.is_file():
            match = re.search(r"^CONFIG_HZ=(\d+)$", place.read_text(errors="replace"), re.MULTILINE)
            if match:
                return int(match[1])
    return 0


def _existing(name: str) -> Path:
    path = Path(name)
    if not _is_file(path):
        raise BadRequestError(f"there is no file {name} in this root")
    return path


def _is_file(path: Path) -> bool:
    """Also False for what the system refuses to look at: a name too long, a folder that is not ours."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequestError(f"can not read {path}: {error.strerror}") from error
