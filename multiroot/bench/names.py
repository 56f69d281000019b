# SPDX-License-Identifier: GPL-2.0-or-later
"""What contenders are called in samples, tables and plots. Recorded results have these names too."""

from __future__ import annotations

OURS = "multi-root"


def traced(contender: str) -> str:
    """The contender's handoffs with tracepoints on, which are not compared."""
    return f"{contender} (traced)"


TRACED = traced(OURS)
FIRST = "first of an update"  # into a root that has just started and has had the canary
COLD = "first of a launch"  # into one that has had no VM at all
LATER = "later"  # into one that has taken VMs before
CLOCKS = "clocks of both roots"  # not a contender: samples of how far the roots' clocks are apart

# Within one kernel, in the order in which they are explained; docs/performance.md says what each is.
IN_PLACE = "in-place"
SAME_KERNEL = (IN_PLACE, "pre-copy", "multifd", "stop-and-copy", "save-and-restore", "mapped-ram")
CPR = ("cpr-transfer", "cpr-exec")  # as QEMU calls the modes, too
POSTCOPY = "postcopy"
OF_ITS_OWN = (POSTCOPY, *CPR)  # each of these needs a VM of another make

KEXEC = "kexec-pmem"  # kexec + PMEM (the LPC 2021 method)

REBOOT = "off-and-on"  # a machine that is turned off and on, with its VMs
UPDATE = (OURS, KEXEC, REBOOT)

UNWATCHED, WATCHED = "nobody looks", "browsers look"

NEW_ROOT = "new-root"
FRESH = "fresh-machine"

# Disks of a guest.
PMEM_DISK, NBD_SERVER, LOCAL_FILE = "pmem", "nbd", "local"
OWN_DISK = "own-disk"  # that its root alone has

HANDOFF = (OURS, *SAME_KERNEL, *OF_ITS_OWN, KEXEC)
