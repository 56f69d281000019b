# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a lab root: tries what one of several roots may not do. Prints a JSON object of errno names, "ok"
for what was done, and how often the module holds itself. With the argument "load" it loads a crash kernel
first; with "alone" it leaves out what would be done.
"""

import ctypes
import errno
import json
import os
import sys
from pathlib import Path

REBOOT, KCMP, KEXEC_FILE_LOAD = 169, 312, 320  # system calls of x86-64
MAGIC, MAGIC2, KEXEC = 0xFEE1DEAD, 672274793, 0x45584543
ON_CRASH, NO_INITRD = 2, 4
KERNEL = Path("/usr/lib/multiroot/kernels/6.12/vmlinuz")
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def system_call(*arguments):
    """Name of the errno, or "ok"."""
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return "ok" if libc.syscall(*words) >= 0 else errno.errorcode[ctypes.get_errno()]


def write(path, text):
    try:
        Path(path).write_text(text)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def held():
    """References to the module but for those of open files. Python's mmap has descriptors of its own, of the
    same files.
    """
    files = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            ours = link.readlink().name in ("multiroot", "multiroot-console")
        except OSError:
            continue  # it has been closed meanwhile
        one = (int(link.parts[2]), int(link.name))
        if ours and not any(same_file(one, other) for other in files):
            files.append(one)
    return int(Path("/sys/module/multiroot/refcnt").read_text()) - len(files)


def same_file(one, other):
    """Whether two descriptors, each a process and a number, are of one open file."""
    return libc.syscall(KCMP, one[0], other[0], 0, ctypes.c_long(one[1]), ctypes.c_long(other[1])) == 0


answers = {}
if "load" in sys.argv:
    line = b"console=ttyS1,115200 nr_cpus=1"
    kernel = os.open(KERNEL, os.O_RDONLY)
    flags = ON_CRASH | NO_INITRD
    answers["load"] = system_call(KEXEC_FILE_LOAD, kernel, -1, len(line) + 1, ctypes.c_char_p(line), flags)
answers["kexec"] = system_call(REBOOT, MAGIC, MAGIC2, KEXEC, 0)
answers["held"] = held()
answers["ftrace off"] = write("/proc/sys/kernel/ftrace_enabled", "0")
if "alone" not in sys.argv:
    answers["sleep"] = write("/sys/power/state", "freeze")
    answers["hibernate"] = write("/sys/power/state", "disk")
sys.stdout.write(json.dumps(answers) + "\n")
