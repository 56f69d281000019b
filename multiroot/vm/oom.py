# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the kernel killed a process because memory ran out: it says so in its log, with the pid.

The line is written before the process can be seen to have ended (mm/oom_kill.c holds the task's lock
meanwhile), so a log without it means that somebody else sent the signal. Counters such as oom_kill in
/proc/vmstat do not say whom the kernel has killed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from multiroot.processes import ProcessId

KMSG = Path("/dev/kmsg")
_RECORD_SIZE = 8192  # more than the kernel puts into one (Documentation/ABI/testing/dev-kmsg)
_KILLED = re.compile(r"(?:O|[a-z] o)ut of memory.*: Killed process (\d+) ")
_SLACK_S = 1.0
_DRIFT = 0.001  # at most: the log's clock is not corrected, that of process starts is


def why_killed(process: ProcessId, log: Path = KMSG) -> str:
    """What the kernel's log says of the SIGKILL that ended `process`, in words for an error."""
    try:
        records, gap = read_log(log)
    except OSError as error:
        return f"whether memory ran out is not known: {log}: {error.strerror}"
    line = find(records, process)
    if line:
        return f"the kernel killed it because memory ran out: {line}"
    if gap or not reaches_back(records, process):
        return "whether memory ran out is not known: the kernel's log does not reach back so far"
    return "not because memory ran out: the kernel's log says nothing of it"


def find(records: list[str], process: ProcessId) -> str:
    """The message by which the kernel says that it has killed the process, "" if there is none."""
    for record in records:
        _, _, message = record.partition(";")
        killed = _KILLED.search(message)
        # An earlier process may have had this pid.
        if killed and int(killed[1]) == process.pid and _time_s(record) >= _began_s(process):
            return message.partition("\n")[0]
    return ""


def reaches_back(records: list[str], process: ProcessId) -> bool:
    """Whether the log has all that was said since the process began."""
    return from_the_start(records) or (bool(records) and _time_s(records[0]) < _began_s(process))


def from_the_start(records: list[str]) -> bool:
    """Whether the log has all from the kernel's start on: its records are numbered from 0."""
    return bool(records) and _fields(records[0])[1] == "0"


def _fields(record: str) -> list[str]:
    """Priority, number, microseconds since the kernel started, and more."""
    return record.partition(";")[0].split(",")


def _time_s(record: str) -> float:
    return int(_fields(record)[2]) / 1e6


def _began_s(process: ProcessId) -> float:
    """The process began after this moment on the log's clock."""
    return process.start / os.sysconf("SC_CLK_TCK") * (1 - _DRIFT) - _SLACK_S


def read_log(log: Path) -> tuple[list[str], bool]:
    """The kernel's log, oldest record first, and whether something is missing between; raises OSError."""
    file = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    records, gap = [], False
    try:
        while True:
            try:
                record = os.read(file, _RECORD_SIZE)
            except BrokenPipeError:
                gap = True  # Overwritten while we read; the next read goes on behind.
            except BlockingIOError:
                break
            else:
                if not record:
                    break
                records.append(record.decode(errors="replace"))
    finally:
        os.close(file)
    return records, gap
