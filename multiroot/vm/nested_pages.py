# SPDX-License-Identifier: GPL-2.0-or-later
"""The sizes of the pages by which KVM maps a guest's RAM.

A guest whose RAM is mapped by small pages waits more often after a handoff: each page that it touches for the
first time in the new root is one exit. KVM counts them in debugfs, in a folder "PID-DESCRIPTOR" for each VM,
in files like pages_2m (struct kvm_vm_stat).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from multiroot import arch
from multiroot.units import format_size

KVM = Path("/sys/kernel/debug/kvm")


def counts(pid: int, kvm: Path = KVM) -> dict[int, int]:
    """How many pages of each size (bytes) KVM has mapped for the VMM `pid`; none where that is not told."""
    return _counted(kvm.glob(f"{pid}-*")) if pid > 0 else {}


def of_all(kvm: Path = KVM) -> dict[int, int]:
    """The same for all VMs of this root together."""
    return _counted(kvm.glob("[0-9]*-[0-9]*"))


def _counted(folders: Iterable[Path]) -> dict[int, int]:
    found: dict[int, int] = {}
    for folder in folders:
        for size in arch.current().memory.page_sizes:
            try:
                number = int((folder / _file(size)).read_text())
            except (OSError, ValueError):
                continue  # the VM has just ended, or this kernel does not count these
            if number > 0:
                found[size] = found.get(size, 0) + number
    return found


def _file(size: int) -> str:
    """pages_4k for 4 KiB."""
    number, unit = format_size(size).split()
    return f"pages_{number}{unit[0].lower()}"
