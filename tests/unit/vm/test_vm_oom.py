# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's log tells whom it killed because memory ran out, and only that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multiroot.processes import ProcessId
from multiroot.vm import oom

HZ = os.sysconf("SC_CLK_TCK")
OURS = ProcessId(1234, 50 * HZ)  # started 50 s after the kernel
LOG = """6,0,0,-;Linux version 6.12
6,900,40000000,-;Out of memory: Killed process 1234 (qemu-system-x86) total-vm:8kB, anon-rss:4kB, UID:0
4,901,60000000,-;qemu-system-x86 invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
 SUBSYSTEM=memory
3,902,60000100,-;{0} Killed process {1} (qemu-system-x86) total-vm:9kB, anon-rss:5kB, UID:0
6,903,60000200,-;oom_reaper: reaped process 1234 (qemu-system-x86), now anon-rss:0kB
"""


def records(text: str) -> list[str]:
    """A record's further lines begin with a blank."""
    return text.replace("\n ", "\0").splitlines()


@pytest.mark.parametrize("why", ["Out of memory:", "Memory cgroup out of memory:"])
def test_the_kernel_says_whom_it_has_killed(why: str) -> None:
    found = oom.find(records(LOG.format(why, 1234)), OURS)
    assert found == f"{why} Killed process 1234 (qemu-system-x86) total-vm:9kB, anon-rss:5kB, UID:0"


@pytest.mark.parametrize(("why", "pid"), [("Out of memory:", 12345), ("Somebody said:", 1234)])
def test_another_process_and_an_earlier_one_of_the_same_pid_are_not_taken_for_it(why: str, pid: int) -> None:
    assert oom.find(records(LOG.format(why, pid)), OURS) == ""


LATE = LOG.partition("\n")[2].replace("6,900,40000000", "6,900,70000000")  # all before is overwritten


@pytest.mark.parametrize(
    ("found", "gap", "says"),
    [
        (LOG.format("Out of memory:", 1234), True, "the kernel killed it because memory ran out: Out of"),
        (LOG.format("Out of memory:", 7), False, "not because memory ran out: the kernel's log says nothing"),
        (LOG.format("Out of memory:", 7), True, "is not known: the kernel's log does not reach back so far"),
        (LATE.format("Out of memory:", 7).replace("process 1234 (", "process 7 ("), False, "is not known"),
        ("", False, "is not known"),
    ],
)
def test_what_is_said_says_what_it_rests_on(
    monkeypatch: pytest.MonkeyPatch, found: str, gap: bool, says: str
) -> None:
    monkeypatch.setattr(oom, "read_log", lambda log: (records(found), gap))
    assert says in oom.why_killed(OURS)


def test_a_log_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    said = oom.why_killed(OURS, tmp_path / "kmsg")
    assert said == f"whether memory ran out is not known: {tmp_path}/kmsg: No such file or directory"
