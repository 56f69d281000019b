# SPDX-License-Identifier: GPL-2.0-or-later
"""One root's agent as a process of its own that dies, without any cleaning up, at a chosen moment.

python -m handoff.agent give|take FOLDER MOMENT
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from multiroot.arena.switch import Outcome, Step, Switch
from multiroot.handoff import giver, relay, takeover
from multiroot.vm.qemu.vmm import QemuVmm

from .harness import Root, hand, make_root, qmp_of, start_vm


def die(*_: Any) -> Any:
    """As kill -9 would."""
    os._exit(0)


async def die_async(*_: Any, **__: Any) -> Any:
    die()


def arrange(moment: str) -> None:
    """Put the agent's death where it was ordered."""
    if moment == "prepared":
        giver.Attempt._transfer = die_async  # type: ignore[method-assign]
    elif moment == "stopped":
        giver.Attempt._transfer = die_stopped(giver.Attempt._transfer)  # type: ignore[method-assign]
    elif moment == "nothing-passed-on":
        relay.OutgoingState._send = die  # type: ignore[method-assign]
    elif moment == "trailer-not-sent":
        relay.OutgoingState._send = die_at_trailer(relay.OutgoingState._send)  # type: ignore[method-assign]
    elif moment == "all-sent":
        QemuVmm.saved = die_async  # type: ignore[method-assign]
    elif moment == "arriving":
        relay.IncomingState._pass_on = die  # type: ignore[method-assign]
    elif moment == "loaded":
        QemuVmm.take = die_after(QemuVmm.take, Step.CHECKED)  # type: ignore[method-assign]
    elif moment == "owned":
        QemuVmm.take = die_after(QemuVmm.take, Step.TAKEN)  # type: ignore[method-assign]
    elif moment == "resumed":
        takeover.Takeover._settle_in = die_async  # type: ignore[method-assign]


def die_after(original: Any, step: Step) -> Any:
    def take(self: QemuVmm, switch: Switch, until: Step) -> Outcome:
        original(self, switch, step)
        die()

    return take


def die_stopped(original: Any) -> Any:
    async def transfer(self: giver.Attempt) -> Any:
        with qmp_of(self._vm).watch("STOP") as events:
            going = asyncio.create_task(original(self))
            await events.next()
            die()
        return await going

    return transfer


def die_at_trailer(original: Any) -> Any:
    def send(self: relay.OutgoingState, data: memoryview) -> None:
        if not data:
            die()
        original(self, data)

    return send


async def main(role: str, folder: Path, moment: str) -> None:
    arrange(moment)
    root = make_root(1 if role == "give" else 2, folder)
    await root.serve()
    if role == "give":
        await give(root, make_root(2, folder))
        return
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def give(root: Root, peer: Root) -> None:
    await start_vm(root)
    await hand(root, peer)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
