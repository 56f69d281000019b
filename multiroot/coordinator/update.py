# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of an update that follow the launch: hand every VM over, commit, retire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multiroot import json_files
from multiroot.coordinator.coordinator import Data, Step, Undoing
from multiroot.errors import ConflictError, MultirootError
from multiroot.handoff.evacuation import Outcome, check
from multiroot.handoff.terms import Terms
from multiroot.launch import retire
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.root.identity import SERVICES
from multiroot.storage import filesystems
from multiroot.storage.filesystems import Filesystem

log = logging.getLogger("multirootd")


@dataclass
class UpdateContext:
    """What the steps work with.

    `here` and `there` name the VMs that this root, or the new one, owns; `hand_over` and `hand_back`
    move some; `announce` tells the new root that this one is about to end, and to take over, with the
    phases so far, whether to verify that nothing writes to what this root leaves, the PCI functions to
    adopt, and the filesystems to go on with. `settle_disks` begins to serve no more files there, and names
    the processes that serve some; `stop_disks` ends these, and the file `left_disks` keeps which filesystems
    they are; `come_to_disks` mounts them and serves again. Behind a shut door this root takes no VM any more.
    `root` is this root's number. `unbound` is the file that keeps which drivers devices had. `staying` names
    functions of VMs in the new root that would end with this root, and the cards that they are parts of.
    `canary` tries a handoff there and back with a VM of our own; `remove_canary` ends what an earlier attempt
    has left of that VM, in either root. `check_wanted` raises ConflictError if the update is being aborted.
    """

    here: Callable[[], list[str]]
    there: Callable[[], list[str]]
    hand_over: Callable[[Sequence[str], Terms], Awaitable[Sequence[Outcome]]]
    hand_back: Callable[[Sequence[str]], Awaitable[object]]
    canary: Callable[[Terms], Awaitable[object]]
    remove_canary: Callable[[], Awaitable[object]]
    announce: Callable[[list[Phase], bool, Sequence[str], Sequence[Filesystem]], Awaitable[object]]
    shut_door: Callable[[], Awaitable[object]]
    open_door: Callable[[], object]
    phases: Phases
    root: int
    unbound: Path
    left_disks: Path
    settle_disks: Callable[[], Collection[int]]
    stop_disks: Callable[[Sequence[Filesystem]], Sequence[Filesystem]]
    come_to_disks: Callable[[Sequence[Filesystem]], object]
    staying: Callable[[], Mapping[str, str]] = dict
    check_wanted: Callable[[], object] = lambda: None
    services: Path = SERVICES


def make_update_steps(context: UpdateContext) -> dict[str, Step]:
    """The steps by their names in `states.UPDATE`."""
    return {
        "handover": HandoverStep(context),
        "commit": CommitStep(context),
        "retire": RetireStep(context),
    }


@dataclass(frozen=True)
class HandoverStep:
    """Hands all VMs over. One that fails stays here, and the others go on.

    The canary goes first, unless the update was told to do without.
    """

    context: UpdateContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        told = data.get(PhaseName.HANDOVER, {})
        terms = Terms.from_dict(told.get("terms", {}))
        await (self.context.remove_canary() if told.get("no_canary") else self.context.canary(terms))
        self.context.check_wanted()
        names = self.context.here()
        # An update that goes on finds some of them in the new root.
        here = replace(terms, first=tuple(name for name in terms.first if name in names))
        outcomes = await self.context.hand_over(names, here)
        # One that was ended meanwhile has nowhere to go.
        live = {*self.context.here(), *self.context.there()}
        left = [outcome for outcome in outcomes if not outcome.error or outcome.name in live]
        check(left, "multiroot handoff --to new")
        return {"vms": names}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        if how.hand_back:
            await self._remove_canary()
        asked: set[str] = set()
        # One may be started there meanwhile.
        while how.hand_back and (left := [name for name in self.context.there() if name not in asked]):
            asked.update(left)
            try:
                await self.context.hand_back(left)
            except MultirootError as error:
                # One that was ended meanwhile need not come back.
                if not how.force and any(name in left for name in self.context.there()):
                    raise
                log.warning("not all VMs come back: %s", error)

    async def _remove_canary(self) -> None:
        """If it does not end, it is no reason to keep the new root: it ends with that."""
        try:
            await self.context.remove_canary()
        except MultirootError as error:
            log.warning("%s", error)


def _refuse_with_vms(context: UpdateContext) -> None:
    left = context.here()
    if left:
        raise ConflictError(f"this root still owns {', '.join(left)}", "hand them over or stop them")


@dataclass(frozen=True)
class CommitStep:
    """From here on the new root is the one to go on with; no VM is left here, and none is taken any more."""

    context: UpdateContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        await self.context.shut_door()
        _refuse_with_vms(self.context)
        for function, card in (await asyncio.to_thread(self.context.staying)).items():
            raise ConflictError(
                f"{function}, which a VM owns, is a part of {card}, which would end with this root",
                "stop the VM, or take the update back: `multiroot update abort`",
            )
        return {}

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        self.context.open_door()


@dataclass(frozen=True)
class RetireStep:
    """Services and processes end, drivers let go, the new root is told, the kernel ends."""

    context: UpdateContext

    async def do(self, data: Mapping[str, Data]) -> Data:
        _refuse_with_vms(self.context)
        phases, mine = self.context.phases, list[Phase]()
        forget = phases.subscribe(lambda phase: mine.append(phase) if phase.duration_ns is not None else None)
        try:
            with phases.phase(PhaseName.STOP_SERVICES):
                await asyncio.to_thread(retire.services, self.context.services, "stop")
                # Guests' requests wait from the end of these servers on, so they end last.
                servers = await asyncio.to_thread(self.context.settle_disks)
                await asyncio.to_thread(retire.end_processes, self.context.root, servers)
            with phases.phase(PhaseName.STOP_DISKS):
                left = await asyncio.to_thread(self._stop_disks)
            with phases.phase(PhaseName.LEAVE_DISKS):
                await asyncio.to_thread(filesystems.leave_all, left)
            with phases.phase(PhaseName.UNBIND_DRIVERS):
                await asyncio.to_thread(retire.unbind_all, self.context.unbound)
        finally:
            forget()
        told = data.get("retire", {})  # of an update that began as a launch nothing was told
        await self.context.announce(mine, bool(told.get("verify")), told.get("devices", ()), left)
        await asyncio.to_thread(retire.end_kernel, self.context.root)
        return {}

    def _stop_disks(self) -> Sequence[Filesystem]:
        """They are on file before they are unmounted, and stay there until this root has them again."""
        left = self.context.stop_disks(self._left())
        json_files.write(self.context.left_disks, [each.to_dict() for each in left])
        return left

    def _left(self) -> list[Filesystem]:
        again = "mount them by hand, and VMs go on"
        return json_files.read(self.context.left_disks, list, _filesystems, again) or []

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        await asyncio.to_thread(retire.bind_again, self.context.unbound)
        await asyncio.to_thread(self.context.come_to_disks, self._left())
        self.context.left_disks.unlink(missing_ok=True)
        await asyncio.to_thread(retire.services, self.context.services, "start")


def _filesystems(data: list[Any]) -> list[Filesystem]:
    """What the retire step has written; raises the usual errors for anything else."""
    return [Filesystem.from_dict(each) for each in data]
