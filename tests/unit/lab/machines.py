# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab machine for tests that start none."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiroot.lab import state
from multiroot.lab.layout import lay_out
from multiroot.lab.machine import Machine
from multiroot.units import GIB, MIB


def default_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine of a lab called "default", whose state is kept below `tmp_path`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("multiroot.lab.state._SOCKET_PATH_LIMIT", 4096)
    memory = lay_out(old_memory=2 * GIB, arena=384 * MIB, carve=GIB, carve_reserved=True, image=424 * MIB)
    return Machine(
        name="default",
        kernel="6.12",
        release="6.12.1-cloud-amd64",
        vmlinuz=Path("/cache/kernel/vmlinuz"),
        initrd=Path("/cache/initramfs/initrd"),
        image=Path("/cache/image/system.erofs"),
        emulator=Path("/cache/emulator/tree"),
        emulator_mend=Path("/cache/program-svm/svm"),
        accelerator="tcg",
        cpus=4,
        old_cpus=(0, 1),
        vms=1,
        vm_memory=256 * MIB,
        layout=memory,
        low_reserved=True,
        cmdline=("no_ipi_broadcast=1",),
        agent_port=40001,
        exec_port=40002,
        state=state.folder("default"),
    )
