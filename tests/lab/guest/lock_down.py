# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a lab root: locks the kernel down while /dev/multiroot is open. Says what can still be done.

Arguments: carve base and size (bytes, reserved at boot).
"""

import os
import subprocess
import sys
from pathlib import Path

from multiroot.device.handle import Device
from multiroot.device.uapi import SHARED_SIZE
from multiroot.errors import MultirootError

SECURITY = Path("/sys/kernel/security")
LOW, LOW_SIZE = 0x20000, 0x20000

base, size = (int(word, 0) for word in sys.argv[1:])
if not os.path.ismount(SECURITY):
    subprocess.run(["mount", "-t", "securityfs", "securityfs", SECURITY], check=True)
with Device() as device:
    device.claim()
    device.carve(base, size, low_base=LOW, low_size=LOW_SIZE, shared=base + SHARED_SIZE)
    device.write_segment(base, b"code")
    sys.stdout.write("written\n")
    (SECURITY / "lockdown").write_text("integrity")
    try:
        device.write_segment(base, b"code")
        sys.stdout.write("written\n")
    except MultirootError:
        sys.stdout.write("refused\n")
    device.uncarve()
    sys.stdout.write("uncarved\n")
