# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes, known by pid and start time, so that a later process with the same pid is not taken for them."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LOWEST = 19  # nice(2)
_SYS_PIDFD_GETFD = 438  # on all architectures
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProcessId:
    """A pid and the process's start in clock ticks since boot."""

    pid: int
    start: int

    def alive(self) -> bool:
        """Whether it still runs. A zombie does not."""
        return read_process(self.pid) == self


def read_process(pid: int, proc_dir: Path = PROC) -> ProcessId | None:
    """The process that has `pid` now; None if there is none or it is a zombie."""
    try:
        fields = stat_fields(pid, proc_dir)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]))


def logging_to(log: Path, proc_dir: Path = PROC) -> list[ProcessId]:
    """Processes whose standard output is this very file, by its inode, as they have it since they began."""
    try:
        wanted = log.stat()
    except FileNotFoundError:
        return []
    found = []
    for folder in proc_dir.glob("[0-9]*"):
        # It may end while we look, or not be ours to look at.
        with suppress(OSError):
            output = (folder / "fd/1").stat()
            if (output.st_dev, output.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(read_process(int(folder.name), proc_dir))
    return [process for process in found if process]


def start_time(pid: int) -> int:
    """The start of the process that has `pid` now, as in ProcessId; 0 if there is none or it is a zombie."""
    process = read_process(pid)
    return process.start if process else 0


def open_pidfd(pid: int) -> int:
    """A file descriptor of the process that has `pid`; ProcessLookupError when none has.

    A kernel like 6.12 says EINVAL, not ESRCH, of a process that has ended as long as its number still names
    the session or the process group of another one.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise


def copied_fd(pid: int, fd: int) -> int:
    """A descriptor of the open file that another process has as `fd` (pidfd_getfd(2), which Python lacks).

    Raises OSError if this user may not have it, ProcessLookupError or EBADF if it is gone.
    """
    pidfd = open_pidfd(pid)
    try:
        made: int = _LIBC.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
        if made < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(pidfd)
    return made


def send(pid: int, *numbers: signal.Signals, start: int | None = None) -> bool:
    """Send signals to the process that has `pid`; False if that has ended, or started at another time than
    `start`, if that is given.
    """
    try:
        pidfd = open_pidfd(pid)
    except ProcessLookupError:
        return False
    try:
        if start is not None and start_time(pid) != start:
            return False
        for number in numbers:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def wait_end(pid: int, seconds: float, start: int | None = None) -> bool:
    """Wait up to `seconds` for the end of the process that has `pid`; whether it has ended. One that started
    at another time than `start`, if that is given, is not the one that is meant: that has ended.
    """
    try:
        pidfd = open_pidfd(pid)
    except ProcessLookupError:
        return True
    try:
        # The number may be another process's by now; it cannot change once we hold it open.
        other = start is not None and start_time(pid) != start
        return other or bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def parent_of(pid: int, proc_dir: Path = PROC) -> int:
    """The parent's pid, 0 for a process without one; raises OSError when no process has `pid`."""
    return int(stat_fields(pid, proc_dir)[1])


def stat_fields(pid: int, proc_dir: Path = PROC) -> list[str]:
    """/proc/PID/stat (proc(5)) from field 3, the state, on; raises OSError when no process has `pid`."""
    text = (proc_dir / str(pid) / "stat").read_text()
    # Field 2, the command name in parentheses, may itself hold blanks and parentheses.
    return text.rpartition(")")[2].split()


def give_way(proc_dir: Path = PROC) -> None:
    """Have this process, and those that it starts, take what CPU all others leave.

    A kernel with autogroups (sched(7)) shares the CPUs among sessions first, and a nice value counts only
    within one. So a process that leads a session of its own lowers that, too. No other may do so, for the
    sake of those beside it.
    """
    os.nice(LOWEST)
    group = proc_dir / "self/autogroup"
    if os.getsid(0) == os.getpid() and group.exists():
        group.write_text(str(LOWEST))
