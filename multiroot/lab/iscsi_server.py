# SPDX-License-Identifier: GPL-2.0-or-later
"""An iSCSI server of disks on the workstation's loopback, which guests' roots reach by their uplink."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.errors import BadRequestError
from multiroot.lab import boot, recipes, roots
from multiroot.lab.cache import Cache
from multiroot.net.addresses import OUTSIDE
from multiroot.vm.iscsi_login import Login

TARGET = "iqn.2026-11.org.example:disk"
INITIATOR = "iqn.2026-11.org.example:guests"  # whom it lets in
_LUN = "1"
_READY_S = 30.0


def tools(cache: Cache) -> Path:
    """The tree with the server, made first when it is not there. Raises BadRequestError."""
    artifact = roots.artifact("iscsi-server", recipes.roots().iscsi_server)
    if not cache.has(artifact) and os.geteuid() != 0:
        raise BadRequestError(
            "making the iSCSI server needs root", "run this once through sudo, later runs need no root"
        )
    return cache.ensure(artifact) / roots.TREE


class IscsiServer:
    """tgtd of the tree `tools`; its disk is the raw file `disk`, beside which it keeps its sockets.

    It may be started again at the same port. `source` is what `multiroot vm run --disk` takes, but for the
    user and the password that it wants if there is a `login`.
    """

    def __init__(self, tools: Path, disk: Path, login: Login | None = None) -> None:
        # The server opens the first one as soon as it starts, when there is no disk yet.
        self._first, self.port = boot.free_ports()
        self.name = f"iscsi://{OUTSIDE}:{self.port}/{TARGET}/{_LUN}"
        self.source = f"{self.name},initiator={INITIATOR}"
        # One that it has not, and what is said then.
        self.other = f"iscsi://{OUTSIDE}:{self.port}/{TARGET}s/{_LUN}", "is not there"
        self._disk = disk
        self._login = login
        self._daemon = roots.loader_argv(tools, "sbin/tgtd")
        self._admin = [*roots.loader_argv(tools, "sbin/tgtadm"), "--lld", "iscsi"]
        self._up = disk.with_name("up.sock")
        self._env = {"TGT_IPC_SOCKET": str(disk.with_name("tgt.sock"))}
        self._log = disk.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve; it does when this returns."""
        self._start()
        self.give_disk()
        self._open()

    def start_without_disk(self) -> None:
        """Let initiators in, and know of no disk until `give_disk`."""
        self._start()
        self._open()

    def give_disk(self) -> None:
        """Have the disk from now on."""
        self._tell("new", "--mode", "logicalunit", "--tid", "1", "--lun", _LUN, "-b", str(self._disk))

    def _start(self) -> None:
        self._up.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as up:
            up.bind(str(self._up))
            up.settimeout(_READY_S)
            argv = [*self._daemon, "-f", "--iscsi", f"portal=127.0.0.1:{self._first}"]
            self._process = proc.spawn(argv, log=self._log, env={**self._env, "NOTIFY_SOCKET": str(self._up)})
            up.recv(1 << 12)
        target = ("--mode", "target", "--tid", "1")
        self._tell("new", *target, "-T", TARGET)
        self._tell("bind", *target, "-Q", INITIATOR)
        if self._login:
            account = ("--mode", "account", "--user", self._login.user)
            self._tell("new", *account, "--password", self._login.password)
            self._tell("bind", *account, "--tid", "1")

    def _open(self) -> None:
        self._tell("new", "--mode", "portal", "--param", f"portal=127.0.0.1:{self.port}")

    def blockdev(self) -> dict[str, Any]:
        """The disk as QEMU in a root is told of it."""
        portal, lun = f"{OUTSIDE}:{self.port}", int(_LUN)
        disk = {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": TARGET, "lun": lun}
        return {**disk, "initiator-name": INITIATOR}

    def close(self) -> None:
        """As a server that dies."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _tell(self, what: str, *words: str) -> None:
        proc.run([*self._admin, "--op", what, *words], env=self._env)
