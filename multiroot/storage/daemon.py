# SPDX-License-Identifier: GPL-2.0-or-later
"""A qemu-storage-daemon for each file. It outlives this agent. With it goes a lock on the file, which keeps
any other daemon away, whatever name of the file that one was given. QEMU's own locks do not: they let servers
share a file.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.errors import CommandError, ConflictError
from multiroot.processes import send, wait_end
from multiroot.vm.disk import DISK_NAME, LocalFile

PROGRAM = "qemu-storage-daemon"
_TIMEOUT_S = 30.0
END_S = 120.0  # a disk that is busy takes its time over what is to be written


@dataclass(frozen=True)
class Daemon:
    """The one of the file at `path`. `folder` is where it keeps its socket and its process's number."""

    path: str
    folder: Path

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self._file("served")

    @property
    def _pid_file(self) -> Path:
        return self._file("pid")

    @property
    def _served(self) -> Path:
        """Says which file it has open."""
        return self._file("file")

    def _file(self, what: str) -> Path:
        return self.folder / LocalFile(self.path).door.with_suffix(f".{what}").name

    def argv(self) -> list[proc.Arg]:
        """Its command line. A comma in a path is no option's end in JSON."""
        blockdev = {
            "driver": "file", "node-name": "file", "filename": self.path, "locking": "on",
            "cache": {"direct": True}, "discard": "unmap",
        }  # fmt: skip
        export = {"type": "nbd", "id": "export", "node-name": "file", "name": DISK_NAME, "writable": True}
        server = {"addr": {"type": "unix", "path": os.fspath(self.socket)}}
        return [
            PROGRAM, "--daemonize", "--pidfile", self._pid_file,
            "--blockdev", json.dumps(blockdev),
            "--nbd-server", json.dumps(server),
            "--export", json.dumps(export),
        ]  # fmt: skip

    def ensure(self) -> None:
        """Start it unless it runs; it answers then. Raises ConflictError, also if it serves another file."""
        if self.pid:
            self.check_file()
            return
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise ConflictError(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            self._start(file)
        finally:
            os.close(file)

    def check_file(self) -> None:
        """Raises ConflictError if another file has taken the place of the one that it has open."""
        try:
            found = _identity(Path(self.path).stat())
        except OSError:
            found = ""
        if self._served.exists() and self._served.read_text() != found:
            raise ConflictError(
                f"{self.path} was replaced or removed while it was served",
                f"if no VM uses it any more, end what serves it: kill {self.pid}",
            )

    def _start(self, file: int) -> None:
        """It inherits the open file, whose lock lasts as long as it does."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"{self.path} is in use, perhaps by another name of it") from error
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in (self.socket, self._pid_file):
            left.unlink(missing_ok=True)
        self._file("path").write_text(self.path)
        self._served.write_text(_identity(os.fstat(file)))
        try:
            proc.run(self.argv(), timeout=_TIMEOUT_S, pass_fds=[file])
        except CommandError as error:
            raise ConflictError(f"the disk {self.path} cannot be served: {error.message}") from error

    @property
    def pid(self) -> int:
        """Of the process, 0 if there is none."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        # Another process may have got its number.
        return pid if os.fsencode(os.fspath(self._pid_file)) in command else 0

    def end(self) -> None:
        """Have it write what it has yet to write, and end. Raises ConflictError if it does not."""
        if not (pid := self.pid):
            return
        send(pid, signal.SIGTERM)
        if not wait_end(pid, END_S):
            raise ConflictError(
                f"the server of {self.path} does not end within {END_S:g} s",
                "it waits for the disk; see the kernel's log: dmesg",
            )


def _identity(file: os.stat_result) -> str:
    """What no other file has."""
    return f"{file.st_dev}:{file.st_ino}"


def running(folder: Path) -> tuple[Daemon, ...]:
    """All that this root has."""
    daemons = (Daemon(file.read_text(), folder) for file in sorted(folder.glob("*.path")))
    return tuple(daemon for daemon in daemons if daemon.pid)
