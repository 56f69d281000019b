# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's KVM says of itself, beside what QEMU tells of it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from multiroot.errors import CommandError

DEVICE = Path("/dev/kvm")
# linux/kvm.h: _IO(KVMIO, number). Both are answered with a number.
_CREATE_VM, _GET_TSC_KHZ = 0xAE01, 0xAEA3


def tsc_khz(device: Path = DEVICE) -> int:
    """How fast the TSC of a new guest of this root runs, kHz. KVM answers this of a VM since Linux 5.18.

    Raises CommandError if there is no KVM, or it does not tell.
    """
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
            try:
                return fcntl.ioctl(vm, _GET_TSC_KHZ, 0)
            finally:
                os.close(vm)
        finally:
            os.close(kvm)
    except OSError as error:
        raise CommandError(f"KVM does not tell how fast a guest's TSC runs: {error}") from error
