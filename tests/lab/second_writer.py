# SPDX-License-Identifier: GPL-2.0-or-later
"""The losing side tries: in a root that does not have a VM, QEMU is made to write to the VM's disk."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from multiroot.lab.lab import Lab
from multiroot.net import namespace

_PROGRAM = (Path(__file__).parent / "guest/second_writer.py").read_text()


def cannot_write(lab: Lab, root: str, disk: dict[str, Any]) -> None:
    """Neither a QEMU that waits for a VM with that disk, nor one that has handed its VM over, can write
    there: it ends by an assertion. `disk` is as -blockdev has it.
    """
    node = json.dumps({"node-name": "disk0", "cache": {"direct": True}, **disk})
    for side in ("taker", "giver"):
        tried = lab.run([*namespace.EXEC, "python3", "-c", _PROGRAM, side, node], root=root)
        assert tried.stdout.strip() == str(-signal.SIGABRT), tried.stderr
        assert "BDRV_O_INACTIVE" in tried.stderr
