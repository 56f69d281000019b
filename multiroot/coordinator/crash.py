# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a new root that joined and then ended by itself: its last words, and what its CPUs did."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multiroot.coordinator.join import CONSOLES, how_it_died, keep_messages, shown
from multiroot.errors import MultirootError
from multiroot.launch.kernel_log import KernelLog, Memory
from multiroot.ranges import Range
from multiroot.root.peers import Peer, Peers, Role, SideState
from multiroot.verdict.health import judge

log = logging.getLogger("multirootd")

_MOST = 2000  # lines of traces that are told; the file has all


@dataclass(frozen=True)
class Report:
    """`what` is one line, `hint` names the file with all messages, `traces` are lines to be shown."""

    root: int
    what: str
    hint: str
    traces: tuple[str, ...] = ()


def look(
    memory: Memory, where: Range, root: int, post_mortem: Callable[[], list[str]], folder: Path = CONSOLES
) -> Report:
    """What is in the memory of a root that has ended. Raises nothing but bugs: a report does not fail."""
    lines: list[str] = []
    try:
        kernel_log = KernelLog(memory, where)
        for _ in kernel_log.search():
            pass
        # The newest message is given when it has been seen twice.
        lines = [*kernel_log.new_lines(), *kernel_log.new_lines()]
        traces = post_mortem()
    except MultirootError as error:
        traces = [f"What its CPUs did cannot be read: {error}"]
    last = f"; the last it said: {shown(lines[-1])}" if lines else ""
    what = how_it_died(f"root {root}", judge(lines)) or f"root {root} ended by itself{last}"
    return Report(root, what, keep_messages([*lines, *traces], root, folder), tuple(traces[:_MOST]))


class CrashWatch:
    """Makes a report as soon as a new root has ended of which nobody wanted that.

    `wanted` is false as long as a new root's end is the coordinator's own doing, `look` makes the report of
    the root with that number. `report` stays until another root has been started.
    """

    def __init__(self, peers: Peers, wanted: Callable[[], bool], look: Callable[[int], Report]) -> None:
        self._peers = peers
        self._wanted = wanted
        self._look = look
        self.report: Report | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._peers.wait(lambda: self._crashed() is not None, None)
            if child := self._crashed():
                self.report = await asyncio.to_thread(self._look, child.root)
                log.warning("%s (%s)", self.report.what, self.report.hint)
            await self._peers.wait(self._another, None)
            self.report = None

    def _crashed(self) -> Peer | None:
        child = self._peers.get(Role.CHILD)
        return child if child and child.state is SideState.PARKED and self._wanted() else None

    def _another(self) -> bool:
        child = self._peers.get(Role.CHILD)
        return child is not None and child.state is not SideState.PARKED
