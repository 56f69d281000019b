# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own cpr-exec (docs/devel/migration/CPR.rst): a QEMU becomes a new one by execve(2); RAM stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiroot.bench.in_root.baseline_vm import BaselineVm, OrdinaryQemu
from multiroot.bench.in_root.cpr import go_on, set_mode
from multiroot.errors import CommandError
from multiroot.vm.folder import last_words
from multiroot.vm.qemu.qmp import Event, Qmp
from multiroot.vm.vmm import VmmGoneError, Wiring

NAME = "cpr-exec"  # as QEMU calls the mode, too
STATE_FILE = Path("/tmp/bench-cpr-exec")
_INCOMING, _STOPPED = "-incoming", "-S"


class CprExecQemu(OrdinaryQemu):
    """One process, several QEMUs one after the other: sockets and taps that the first inherited go on, and so
    does the socket at which it listens for QMP.
    """

    def spawn(self, wiring: Wiring, *, incoming: bool) -> None:
        """Without vhost-net: its descriptors stay those of the process's old memory."""
        cards = tuple(replace(card, vhosts=()) for card in wiring.cards)
        super().spawn(replace(wiring, cards=cards), incoming=incoming)

    async def connect_again(self) -> None:
        """To the QEMU that this process has become."""
        await self.qmp.ended()
        self.qmp = Qmp(self.setup.definition.name, self.setup.to_ns)
        try:
            await self.connect_qmp()
        except VmmGoneError as error:
            raise CommandError(f"{NAME}: {last_words(self.setup.log)}") from error


class CprExecVm(BaselineVm):
    """A VM with such a QEMU."""

    kind = CprExecQemu

    async def exec_over(self) -> tuple[Event, Event, Any]:
        """Have it become a new QEMU: the STOP event, the RESUME event, what was sent."""
        assert isinstance(self.qemu, CprExecQemu)
        assert self.vmm.process
        argv = resuming(Path(f"/proc/{self.vmm.process.pid}/cmdline").read_bytes(), STATE_FILE)
        await set_mode(self.qmp, NAME, cpr_exec_command=argv)
        with self.qmp.watch("STOP", "MIGRATION") as events:
            await self.qmp.execute("migrate", uri=f"file:{STATE_FILE}")
            while (stopped := await events.next()).name != "STOP":
                if stopped.data.get("status") == "failed":
                    raise CommandError(f"{NAME} failed")
            await self.qemu.connect_again()
        self.qmp = self.qemu.qmp
        # Stopped when it has loaded: when it went on by itself could not be seen, for lack of events.
        resumed = await go_on(self.qmp)
        sent = STATE_FILE.stat().st_size
        STATE_FILE.unlink()
        return stopped, resumed, {"ram": {"transferred": sent}}


def resuming(cmdline: bytes, state: Path) -> list[str]:
    """The command of a running QEMU, as proc(5) has it, for one that goes on from the file `state`."""
    words = cmdline.decode().rstrip("\0").split("\0")
    return [*_without_source(words), _INCOMING, f"file:{state}", _STOPPED]


def _without_source(words: Sequence[str]) -> list[str]:
    """Nothing of what an earlier turn has added."""
    kept = []
    for before, word in zip(("", *words), words, strict=False):
        if word not in (_INCOMING, _STOPPED) and before != _INCOMING:
            kept.append(word)
    return kept
