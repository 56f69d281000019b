# SPDX-License-Identifier: GPL-2.0-or-later
"""A server of disks on the workstation's loopback, which guests' roots reach by their uplink."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from multiroot import proc
from multiroot.lab import boot, roots
from multiroot.net.addresses import OUTSIDE

EXPORT = "disk"


class NbdServer:
    """qemu-nbd of the tree `tools` (`disk_image.tools`); its disk is the raw file `disk`.

    It may be started again at the same port. `source` is what `multiroot vm run --disk` takes.
    """

    def __init__(self, tools: Path, disk: Path) -> None:
        self.port, _ = boot.free_ports()
        self.source = f"nbd:{OUTSIDE}:{self.port}/{EXPORT}"
        self.name = f"nbd://{OUTSIDE}:{self.port}/{EXPORT}"
        self.other = (
            f"{self.source}s",
            "serves no disk of that name",
        )  # one that it has not; what is said then
        # Both VMMs of a handoff are clients for a while.
        self._argv = [
            *roots.loader_argv(tools, "bin/qemu-nbd"),
            "--persistent", "--shared=8", "--format=raw", f"--export-name={EXPORT}", "--discard=unmap",
            "--bind=127.0.0.1", f"--port={self.port}", str(disk),
        ]  # fmt: skip
        self._log = disk.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve. Whoever connects too early tries again."""
        self._process = proc.spawn(self._argv, log=self._log)

    def blockdev(self) -> dict[str, Any]:
        """The disk as QEMU in a root is told of it."""
        server = {"type": "inet", "host": OUTSIDE, "port": str(self.port)}
        return {"driver": "nbd", "server": server, "export": EXPORT}

    def close(self) -> None:
        """As a server that dies."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
