# SPDX-License-Identifier: GPL-2.0-or-later
"""A process is known by its pid and its start, whatever its name looks like."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiroot.processes import ProcessId, open_pidfd, parent_of, read_process, send, start_time, wait_end


def test_this_process() -> None:
    me = read_process(os.getpid())
    assert me is not None
    assert me.alive()
    assert me == ProcessId(os.getpid(), start_time(os.getpid()))
    assert not ProcessId(me.pid, me.start + 1).alive()
    assert parent_of(me.pid) == os.getppid()


def test_a_zombie_and_a_process_that_is_gone_have_ended() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert read_process(child.pid) is None
    assert read_process(child.pid) is None
    assert start_time(child.pid) == 0


def test_a_name_may_hold_parentheses_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    rest = ["S", "3", *("0" for _ in range(17)), "4711", "0"]
    (tmp_path / "7/stat").write_text(f"7 (a) b (c)) {' '.join(rest)}\n")
    assert read_process(7, tmp_path) == ProcessId(7, 4711)
    assert parent_of(7, tmp_path) == 3


def test_the_end_of_a_process_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not wait_end(child.pid, 0)
        start = start_time(child.pid)
        assert not wait_end(child.pid, 0, start)
        assert wait_end(child.pid, 0, start + 1), "it is another one"
        child.kill()
        assert wait_end(child.pid, 20, start)
    assert wait_end(child.pid, 0)


@pytest.fixture
def ended_leader() -> Iterator[int]:
    """The pid of a session's leader that has ended, while another process of its session runs on."""
    program = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:
        output, _ = leader.communicate(timeout=60)
    yield leader.pid
    os.kill(int(output), signal.SIGKILL)


def test_a_session_s_leader_that_has_ended_has_ended(ended_leader: int) -> None:
    with pytest.raises(ProcessLookupError):
        open_pidfd(ended_leader)
    assert wait_end(ended_leader, 0)


def test_so_it_has_for_a_kernel_that_calls_its_pid_invalid(
    ended_leader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`update retire` failed with "Invalid argument" in 6.1 when a shell was gone and its job was not."""

    def of_6_1(pid: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pidfd_open", of_6_1)
    with pytest.raises(ProcessLookupError):
        open_pidfd(ended_leader)
    assert wait_end(ended_leader, 0)


def test_who_gives_way_does_so_with_its_whole_session_and_with_no_other(tmp_path: Path) -> None:
    group = tmp_path / "self/autogroup"
    group.parent.mkdir()
    group.write_text("/autogroup-1 nice 0")
    program = (
        "import os, sys; from pathlib import Path; from multiroot.processes import give_way;"
        " give_way(Path(sys.argv[1])); print(os.nice(0))"
    )
    for leads, written in ((False, "/autogroup-1 nice 0"), (True, "19")):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            start_new_session=leads,
            stdout=subprocess.PIPE,
            check=True,
        )
        assert (done.stdout, group.read_text()) == (b"19\n", written)


def test_a_signal_reaches_a_process_and_no_later_one_of_its_number() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        start = start_time(child.pid)
        assert not send(child.pid, signal.SIGKILL, start=start + 1)
        assert child.poll() is None
        assert send(child.pid, signal.SIGCONT, signal.SIGKILL, start=start)
        assert child.wait(20) == -signal.SIGKILL
    assert not send(child.pid, signal.SIGKILL)


def test_one_that_ends_before_its_signal_comes_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(pidfd: int, number: signal.Signals) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", too_late)
    assert not send(os.getpid(), signal.SIGCONT)
