# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that is only asked: it runs no guest, and ends when it has answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from multiroot import proc
from multiroot.errors import BadRequestError, CommandError
from multiroot.vm.folder import last_words
from multiroot.vm.process import listen, started
from multiroot.vm.qemu.command import Qemu, bare_machine
from multiroot.vm.qemu.options import option
from multiroot.vm.qemu.qmp import Qmp
from multiroot.vm.vmm import VmmGoneError, VmmStuckError

NO_MACHINE = ("-machine", "none")


class DidNotStartError(CommandError):
    """It has ended before it could be asked; the message is its last words."""


@asynccontextmanager
async def asked(qemu: Qemu, words: tuple[str, ...] = NO_MACHINE) -> AsyncIterator[Qmp]:
    """One with the machine that these words make. Raises DidNotStartError, or VmmStuckError."""
    with TemporaryDirectory(prefix="multiroot-qemu-") as folder:
        path, log = Path(folder, "qmp.sock"), Path(folder, "qemu.log")
        with listen(path) as listener:
            argv, fd = _argv(qemu, words, listener.fileno()), listener.fileno()
            process = started(proc.spawn(argv, log=log, pass_fds=[fd]))
        qmp = Qmp("a QEMU that is only asked", lambda ns: ns)
        try:
            try:
                await qmp.connect(path)
            except VmmGoneError as error:
                raise DidNotStartError(last_words(log) or str(error)) from error
            yield qmp
        finally:
            await process.kill()
            await qmp.disconnect()


async def check_machine(qemu: Qemu, machine: str, watchdog: str) -> None:
    """Raises BadRequestError, in QEMU's words, for a definition's machine that it does not start with.

    QEMU alone knows which options a kind of machine has, and what goes with what.
    """
    try:
        async with asked(qemu, bare_machine(machine, watchdog)):
            return
    except DidNotStartError as error:
        kind = machine.partition(",")[0]
        raise BadRequestError(
            f"QEMU does not start with the machine {machine!r}: {error.message}",
            f"what there is: multiroot lab exec -- {qemu.program} -machine {kind},help",
        ) from error
    except VmmStuckError as error:
        raise CommandError(f"QEMU does not say whether it has the machine {machine!r}") from error


def _argv(qemu: Qemu, words: tuple[str, ...], qmp: int) -> list[str]:
    return [
        str(qemu.program), "-nodefaults", "-no-user-config", "-display", "none", "-S",
        *words, "-accel", qemu.accel,
        "-chardev", option("socket", {"id": "qmp", "fd": qmp, "server": True, "wait": False}),
        "-object", option("monitor-qmp", {"id": "qmp-control", "chardev": "qmp"}),
    ]  # fmt: skip
