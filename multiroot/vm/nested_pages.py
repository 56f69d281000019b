# SPDX-License-Identifier: GPL-2.0-or-later
"""The sizes of the pages by which KVM maps a guest's RAM.

A guest whose RAM is mapped by small pages waits more often after a handoff: each page that it touches for the
first time in the new root is one exit. KVM counts them in debugfs, in a folder "PID-DESCRIPTOR" for each VM
(Documentation/virt/kvm/x86/mmu.rst; the files are those of kvm_vm_stats).
"""

from __future__ import annotations

from pathlib import Path

from multiroot.units import GIB, HUGE_PAGE, KIB

KVM = Path("/sys/kernel/debug/kvm")
_FILES = {"pages_4k": 4 * KIB, "pages_2m": HUGE_PAGE, "pages_1g": GIB}


def counts(pid: int, kvm: Path = KVM) -> dict[int, int]:
    """How many pages of each size (bytes) KVM has mapped for the VMM `pid`; none where that is not told."""
    found: dict[int, int] = {}
    for folder in kvm.glob(f"{pid}-*") if pid > 0 else ():
        for name, size in _FILES.items():
            try:
                number = int((folder / name).read_text())
            except (OSError, ValueError):
                continue  # the VM has just ended, or another kernel calls them otherwise
            if number > 0:
                found[size] = found.get(size, 0) + number
    return found
