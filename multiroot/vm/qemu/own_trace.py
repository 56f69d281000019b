# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own trace of what takes its time when it saves and loads a device state, if somebody wants it.

Whoever measures makes the folder FOLDER in a root. Then a QEMU there that waits for a state, and one that is
about to send its own, write their events to files in it. QEMU: docs/devel/tracing.rst, the backend `log`.
"""

from __future__ import annotations

from pathlib import Path

from multiroot.vm.qemu.qmp import Qmp

FOLDER = Path("/run/multiroot/qemu-trace")
SAVE, LOAD = "save", "load"

# migration/trace-events, system/trace-events, accel/kvm/trace-events. A QEMU that lacks one goes without it.
_EVENTS = ("vmstate_downtime_save", "vmstate_downtime_load", "flatview_new", "kvm_set_user_memory")


def path(what: str, vm: str) -> Path:
    """The file of VM `vm`."""
    return FOLDER / f"{what}-{vm}"


class OwnTrace:
    """Of one QEMU."""

    def __init__(self, qmp: Qmp, vm: str) -> None:
        self._qmp = qmp
        self._vm = vm
        self._on = False

    async def begin(self, what: str) -> None:
        """Before it loads or saves; ends what an earlier one has begun if nobody wants it any more.

        Raises what `Qmp.execute` raises.
        """
        wanted = FOLDER.is_dir()
        if wanted:
            command = f"logfile {path(what, self._vm)}"
            await self._qmp.execute("human-monitor-command", command_line=command)
        if wanted or self._on:
            for event in _EVENTS:
                await self._qmp.execute(
                    "trace-event-set-state", name=event, enable=wanted, ignore_unavailable=True
                )
        self._on = wanted
