# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots of a lab machine whose QEMU is a small program: which are tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab.machines import default_machine

from multiroot.errors import BadRequestError, ConflictError
from multiroot.lab import boot, host, image_lock, lab_disks, paths, state
from multiroot.lab.boot import BootError
from multiroot.lab.lab_disks import LabDisk
from multiroot.lab.machine import Machine
from multiroot.phases import Phases
from multiroot.units import GIB

# Plays QEMU: what it does depends on how often it was started.
QEMU = """
import pathlib, socket, sys
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2].split(",")
count = folder / "starts"
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
what = behaviour[min(number, len(behaviour)) - 1]

def connect(name):
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(folder / name))
    return end

monitor = connect("recorder-qmp.sock") if what != "refuse" else None
if what == "port":
    sys.exit("Could not set up host forwarding rule 'tcp:127.0.0.1:%s'" % sys.argv[3])
if what in ("refuse", "late"):
    sys.exit("Invalid parameter 'b'")
serial = connect("serial-old.sock")
serial.sendall(b"multiroot: mark exec 1\\nmultiroot: mark devices 1\\n")
sys.stdin = open("/dev/stdin")
import signal
signal.pause()
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Its folder has a short name: sockets are made in it."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        yield default_machine(Path(folder), monkeypatch)


def behave(monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    def argv(machine: Machine) -> list[str]:
        return [sys.executable, "-c", QEMU, str(machine.state), behaviour, str(machine.agent_port)]

    monkeypatch.setattr(boot, "qemu_argv", argv)


@pytest.mark.parametrize("behaviour", ["refuse", "late"])
def test_a_command_line_that_qemu_refuses_is_not_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    behave(monkeypatch, behaviour)
    with pytest.raises(BootError, match=r"cannot boot: QEMU exited with 1: Invalid parameter"):
        boot.up(machine, "digest", Phases("workstation"))
    lab = state.load("default")
    assert [attempt.final for attempt in lab.attempts] == [True]
    # Nothing of it is left to wait for; raises if there is.
    boot.wait_end(lab, 0)


def test_a_port_that_is_taken_is_replaced(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, "port,ready")
    lab = boot.up(machine, "digest", Phases("workstation"))
    try:
        assert [attempt.outcome == "ready" for attempt in lab.attempts] == [False, True]
        assert "forwarding rule 'tcp:127.0.0.1:40001'" in lab.attempts[0].outcome
        assert lab.machine.agent_port != 40001
    finally:
        os.kill(lab.pid, signal.SIGKILL)
        boot.wait_end(lab, 30)


def test_a_disk_of_a_machine_that_runs_is_no_other_machines(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By whatever name of the file; a copy of the machine's own is nobody else's anyway."""
    behave(monkeypatch, "ready")
    file, link = tmp_path / "x.raw", tmp_path / "link.raw"
    file.write_bytes(bytes(512))
    link.hardlink_to(file)
    own = LabDisk(file, tmp_path / "none.raw", 512, ("cp", "--sparse=always", str(file), "none.raw"))
    other = replace(machine, name="other", disks=(LabDisk(link, link, 512),))
    monkeypatch.setattr(lab_disks, "provide", lambda disks, phases: None)
    lab = boot.up(replace(machine, disks=(LabDisk(file, file, 512), own)), "digest", Phases("workstation"))
    try:
        with pytest.raises(
            ConflictError, match=r"link\.raw is in use: another machine that runs .*cp --sparse"
        ):
            boot.up(other, "digest", Phases("workstation"))
        assert state.names() == ["default"]
        with pytest.raises(ConflictError) as raised, image_lock.read(link):
            pass
        assert raised.value.hint == "end that machine first: multiroot lab down --name default"
    finally:
        os.kill(lab.pid, signal.SIGKILL)
        boot.wait_end(lab, 30)
    with lab_disks.locked(other.disks):
        pass
    file.unlink()
    with pytest.raises(BadRequestError, match=r"x\.raw cannot be opened: No such file"):
        boot.up(replace(machine, disks=(LabDisk(file, file, 512),)), "digest", Phases("workstation"))


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_command_while_a_machine_boots_leaves_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, how: type[BaseException]
) -> None:
    behave(monkeypatch, "silent")
    booting: list[int] = []

    def watch(feed: boot.Feed, watchdog: object, qemu: subprocess.Popen[bytes]) -> str:
        booting.append(qemu.pid)
        raise how

    monkeypatch.setattr(boot, "_watch", watch)
    with pytest.raises(how):
        boot.up(machine, "digest", Phases("workstation"))
    lab = state.load("default")
    assert [lab.pid] == booting
    assert not lab.alive()
    boot.wait_end(lab, 0)  # raises if anything is left to wait for


def test_a_machine_that_does_not_fit_is_refused_with_what_there_is(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    3145729 kB\nSwapFree: 1048576 kB\n")
    host.check_memory(4 * GIB, meminfo)
    with pytest.raises(BadRequestError, match=r"needs 3\.0 TiB of memory, 4\.0 GiB are available"):
        host.check_memory(3072 * GIB, meminfo)


@pytest.mark.parametrize("name", ["a%d", "a\nb", "a\udce9b", "a\x1bb"])
def test_folders_that_no_lab_can_be_kept_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / name))
    with pytest.raises(BadRequestError, match="labs cannot be kept in"):
        state.folder("default")


def test_a_relative_folder_in_the_environment_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert paths.state_dir() == tmp_path / ".local/state/multiroot"


@pytest.mark.parametrize("uid", ["x", "-5", "9" * 30, "4294967000"])
def test_an_unknown_user_behind_sudo_is_said_so(monkeypatch: pytest.MonkeyPatch, uid: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", uid)
    with pytest.raises(BadRequestError, match="no user with the number"):
        paths.invoking_user()
