# SPDX-License-Identifier: GPL-2.0-or-later
"""What others ask about entering a kernel, and the implementation for this machine's architecture.

The module `kexec.ARCH.build` of each architecture implements `Target`.
"""

from __future__ import annotations

from typing import Any, Protocol

from multiroot import arch
from multiroot.kexec.boot import BootPlan, RootSpec
from multiroot.kexec.x86 import build as x86
from multiroot.ranges import Range


class Image(Protocol):
    """A kernel file that passed every check."""

    @property
    def release(self) -> str: ...


class Target(Protocol):
    """How a kernel is entered on one architecture. Every function raises BadRequestError for bad input."""

    def read_image(self, data: bytes) -> Image:
        """Parse and check a kernel file."""

    def minimum_carve(self, image: Any, initrd_size: int) -> int:
        """Bytes of the smallest carve, at any aligned base, that `image` of this target comes up in."""

    def least_ram(self, image: Any, initrd_size: int) -> int:
        """Bytes of RAM that a virtual machine needs for `image` of this target to come up."""

    def check_low_window(self, low: Range) -> None:
        """Refuse a low window that no root can have."""

    def build(self, kernel: bytes, initrd: bytes, user_cmdline: str, spec: RootSpec) -> BootPlan:
        """Make the boot plan of a new root; `initrd` may be empty."""

    def reusable(self, running: str, own: str) -> str:
        """The part of a running root's command line that fits another root too, and `own` behind it."""


_TARGETS: dict[str, Target] = {"x86": x86}


def target() -> Target:
    """The target of the architecture of this machine."""
    return _TARGETS[arch.current().name]
