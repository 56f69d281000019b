# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own cpr-transfer (docs/devel/migration/CPR.rst): RAM stays, a new QEMU gets fds and state."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from multiroot.bench.in_root.baseline_vm import BaselineVm
from multiroot.errors import CommandError, WaitTimeoutError
from multiroot.vm.folder import last_words
from multiroot.vm.qemu.command import Incoming, Qemu
from multiroot.vm.qemu.qmp import Event, Qmp
from multiroot.vm.qemu.vmm import QemuVmm
from multiroot.vm.vmm import VmmSetup, Wiring

NAME = "cpr-transfer"  # as QEMU calls the mode, too
MACHINE_OPTION = "aux-ram-share=on"  # a QEMU that does not know it has no cpr-transfer either
_SOCKETS_S = 60.0
_POLL_S = 0.002


class CprQemu(QemuVmm):
    """A waiting one listens at two sockets and answers no QMP before the giver's first words have come."""

    alone = False

    def __init__(self, qemu: Qemu, setup: VmmSetup) -> None:
        super().__init__(qemu, setup)
        # For the device state, and for what comes before it.
        self._sockets = {"main": setup.folder / "main.sock", "cpr": setup.folder / "cpr.sock"}
        # As QMP's `migrate` wants them.
        self.channels: list[dict[str, Any]] = [
            {"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": str(path)}}
            for kind, path in self._sockets.items()
        ]
        # Stopped when it has loaded: when it went on by itself could not be seen, for lack of events.
        self.incoming = Incoming(tuple(json.dumps(channel) for channel in self.channels), stopped=True)

    async def start(self, wiring: Wiring, *, incoming: bool = False) -> None:
        """A waiting one has started when both of its sockets are there; `connect_qmp` comes later."""
        if not incoming:
            await super().start(wiring)
            return
        self.spawn(wiring, incoming=True)
        self.drop_monitor()
        try:
            async with asyncio.timeout(_SOCKETS_S):
                # This socket comes last. QEMU tells nobody.
                while not self._sockets["cpr"].exists():
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise WaitTimeoutError(f"QEMU does not listen: {last_words(self.setup.log)}") from None


class CprBaselineVm(BaselineVm):
    """A VM with such a QEMU."""

    kind = CprQemu


async def transfer(source: BaselineVm, target: CprBaselineVm) -> tuple[Event, Event, Any]:
    """From one QEMU to the other: the STOP event, the RESUME event, the giver's account of it."""
    await target.start(giver=source.owner)
    assert isinstance(target.qemu, CprQemu)
    await set_mode(source.qmp, NAME)
    with source.qmp.watch("STOP") as stops:
        await source.qmp.execute("migrate", channels=target.qemu.channels)
        await target.qemu.connect_qmp()
        resumed = await go_on(target.qmp)
        stopped = await stops.next()
    account = await source.qmp.execute("query-migrate")
    if account["status"] != "completed":
        raise CommandError(f"{NAME} {account['status']}")
    return stopped, resumed, account


async def set_mode(qmp: Qmp, mode: str, **more: Any) -> None:
    """Have the next `migrate` be of this mode of QEMU's, with what else that needs."""
    off = [{"capability": "x-ignore-shared", "state": False}]
    await qmp.execute("migrate-set-capabilities", capabilities=off)
    await qmp.execute("migrate-set-parameters", mode=mode, **more)


async def go_on(qmp: Qmp) -> Event:
    """Let the guest go on as soon as a QEMU that stays stopped has loaded its state: the RESUME event."""
    with qmp.watch("RESUME") as resumes:
        while (await qmp.execute("query-status"))["status"] == "inmigrate":
            await asyncio.sleep(_POLL_S)
        await qmp.execute("cont")
        return await resumes.next()
