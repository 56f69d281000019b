# SPDX-License-Identifier: GPL-2.0-or-later
"""The server of one file: which file it has open, and how it ends."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from multiroot.errors import ConflictError
from multiroot.storage.daemon import Daemon


def test_two_names_of_one_file_have_one_daemon_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Daemon, "argv", lambda daemon: ["true"])
    file, link = tmp_path / "a", tmp_path / "b"
    file.touch()
    link.hardlink_to(file)
    with file.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="b is in use, perhaps by another name"):
            Daemon(str(link), tmp_path / "d").ensure()
    Daemon(str(link), tmp_path / "d").ensure()
    with pytest.raises(ConflictError, match="cannot be opened: No such file"):
        Daemon(str(tmp_path / "c"), tmp_path / "d").ensure()


def test_another_file_in_the_place_of_the_one_that_is_served_is_no_vms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Daemon, "argv", lambda daemon: ["true"])
    file = tmp_path / "a"
    file.touch()
    daemon = Daemon(str(file), tmp_path / "d")
    daemon.ensure()
    monkeypatch.setattr(Daemon, "pid", property(lambda _: 7))
    daemon.ensure()
    file.rename(tmp_path / "old")
    with pytest.raises(ConflictError, match=r"a was replaced or removed while it was served"):
        daemon.check_file()
    file.touch()
    with pytest.raises(ConflictError, match=r"a was replaced or removed while it was served"):
        daemon.ensure()


def test_the_daemon_gets_paths_with_commas_whole(tmp_path: Path) -> None:
    words = [str(word) for word in Daemon("/srv/a,b=c.raw", tmp_path).argv()]
    assert '"filename": "/srv/a,b=c.raw"' in words[words.index("--blockdev") + 1]
    assert Daemon("/srv/a,b=c.raw", tmp_path).pid == 0


def test_a_daemon_is_told_to_end_and_waited_for(tmp_path: Path) -> None:
    daemon = Daemon("/srv/web.raw", tmp_path)
    daemon.end()  # none runs
    pid_file = tmp_path / daemon.socket.with_suffix(".pid").name
    wait = [sys.executable, "-c", "print(flush=True); input()", pid_file]
    with subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()  # its command line is in /proc now
        pid_file.write_text(str(child.pid))
        assert daemon.pid == child.pid
        daemon.end()
        assert child.wait(20) == -signal.SIGTERM
    assert daemon.pid == 0
