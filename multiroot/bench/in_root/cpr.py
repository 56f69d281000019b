# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own cpr-transfer (docs/devel/migration/CPR.rst): RAM stays, a new QEMU gets fds and state."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from multiroot.bench.in_root.baseline_vm import Rival
from multiroot.errors import CommandError, WaitTimeoutError
from multiroot.vm.qemu.command import Descriptors, Paths
from multiroot.vm.qemu.qmp import Event

NAME = "cpr-transfer"  # as QEMU calls the mode, too
MACHINE_OPTION = "aux-ram-share=on"  # a QEMU that does not know it has no cpr-transfer either
_SOCKETS_S = 60.0
_POLL_S = 0.002


class CprRival(Rival):
    """A waiting one listens at two sockets and answers no QMP before the giver's first words have come."""

    @property
    def sockets(self) -> tuple[Path, Path]:
        """For the device state, and for what comes before it."""
        return self.folder.path / "main.sock", self.folder.path / "cpr.sock"

    def channels(self) -> list[dict[str, Any]]:
        """As QMP's `migrate` wants them."""
        return [
            {"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": str(path)}}
            for kind, path in zip(("main", "cpr"), self.sockets, strict=True)
        ]

    def _argv(self, paths: Paths, descriptors: Descriptors, incoming: bool) -> list[str]:
        words = super()._argv(paths, descriptors, incoming)
        if not incoming:
            return words
        at = words.index("-incoming")
        listening = [word for channel in self.channels() for word in ("-incoming", json.dumps(channel))]
        # Stopped when it has loaded: when it went on by itself could not be seen, for lack of events.
        return [*words[:at], *listening, *words[at + 2 :], "-S"]

    async def listen(self) -> None:
        """Start QEMU; returns when its socket for what comes first is there, the other one follows that."""
        self.folder.make()
        await self._spawn(incoming=True)
        self.drop_monitor()
        try:
            async with asyncio.timeout(_SOCKETS_S):
                while not self.sockets[1].exists():
                    await asyncio.sleep(_POLL_S)  # QEMU tells nobody
        except TimeoutError:
            raise WaitTimeoutError(f"QEMU does not listen: {self.folder.last_words()}") from None


async def transfer(source: Rival, target: CprRival) -> tuple[Event, Event, Any]:
    """From one QEMU to the other: the STOP event, the RESUME event, the giver's account of it."""
    await target.listen()
    off = [{"capability": "x-ignore-shared", "state": False}]
    await source.qmp.execute("migrate-set-capabilities", capabilities=off)
    await source.qmp.execute("migrate-set-parameters", mode=NAME)
    with source.qmp.watch("STOP") as stops:
        await source.qmp.execute("migrate", channels=target.channels())
        await target.qmp.connect(target.folder.qmp)
        with target.qmp.watch("RESUME") as resumes:
            while (await target.qmp.execute("query-status"))["status"] == "inmigrate":
                await asyncio.sleep(_POLL_S)
            await target.qmp.execute("cont")
            resumed = await resumes.next()
        stopped = await stops.next()
    account = await source.qmp.execute("query-migrate")
    if account["status"] != "completed":
        raise CommandError(f"{NAME} {account['status']}")
    return stopped, resumed, account
