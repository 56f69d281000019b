# SPDX-License-Identifier: GPL-2.0-or-later
"""What this agent tells those who watch it, put together from its parts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc.aio

from multiroot import __version__
from multiroot.agent.context import Root
from multiroot.agent.guests import Guests
from multiroot.agent.handoffs import Handoffs
from multiroot.agent.updates import Updates
from multiroot.arena.backing import find_device
from multiroot.coordinator import outlook
from multiroot.coordinator.adoption import AdoptionState
from multiroot.coordinator.states import STEPS
from multiroot.errors import MultirootError
from multiroot.phase_names import PhaseName
from multiroot.root.identity import uptime_s
from multiroot.root.peers import Role
from multiroot.rpc.v1 import watch_pb2_grpc
from multiroot.vm.manager import VmManager
from multiroot.vm.ticks import Stretch
from multiroot.watch.facts import ClockFacts, Facts, RootFacts, RootState, StepFacts, UpdateFacts
from multiroot.watch.kernel_tail import KernelTail
from multiroot.watch.known_roots import KnownRoots, PeerLook
from multiroot.watch.machine_look import MachineLook
from multiroot.watch.phase_log import PhaseLog
from multiroot.watch.teller import Teller
from multiroot.watch.tick_tail import TickTails
from multiroot.watch.vm_look import VmLook
from multiroot.watch.watch_service import WatchService

if TYPE_CHECKING:
    from multiroot.agent.metrics import Metrics

log = logging.getLogger("multirootd")

_NAMES = {Role.PARENT: "old", Role.CHILD: "new"}
_LASTING = (PhaseName.COMMIT, PhaseName.RETIRE)  # steps that nothing takes back


class Watching:
    """From the agent's start to its end; it works only while somebody watches."""

    def __init__(self, root: Root, guests: Guests, updates: Updates, handoffs: Handoffs) -> None:
        self._root = root
        self._updates = updates
        self._handoffs = handoffs
        arena = arena_address(guests)
        self._machine = MachineLook(root.device, root.me.root, lambda: arena)
        manager = guests.manager_or_none
        self._vms = VmLook(manager, arena) if manager and arena is not None else None
        self._phases = PhaseLog(root.phases, root.news.ring)
        self._kernel = KernelTail()
        self._known = KnownRoots(root.clock, self._is_being_ended)
        updates.console.subscribe(lambda line: self._known.lines.add([line]))
        self._booted_ns = root.clock() - int(uptime_s() * 1e9)
        self._wall_offset_ns = time.time_ns() - root.clock()
        self._metrics: Metrics | None = None
        self.teller = Teller(self.look, GuestTicks(manager, root.clock), root.clock, root.news)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer WatchService."""
        service = WatchService(self._root.me.root, self.teller, self._root.peers.beats)
        watch_pb2_grpc.add_WatchServiceServicer_to_server(service, server)

    def serve_metrics(self, address: tuple[str, int]) -> None:
        """Tell Prometheus, too; a root without its library, or whose port is taken, goes on without."""
        try:
            # Most agents are not asked to: importing it takes time.
            from multiroot.agent.metrics import Metrics

            settled = self._handoffs.log.settled
            loop = asyncio.get_running_loop()
            metrics = Metrics(self.look, self._root.news.quiet, lambda: dict(settled), loop)
            metrics.serve(address)
        except (ImportError, MultirootError) as error:
            log.warning("no metrics: %s", error)
        else:
            self._metrics = metrics

    async def close(self) -> None:
        """Tell nobody any more."""
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
        await self.teller.end()
        self._kernel.close()

    def look(self) -> Facts:
        """The facts as far as this root knows them. Raises MultirootError for an arena that is damaged."""
        child = self._root.peers.get(Role.CHILD)
        ledger = self._machine.ledger()
        return Facts(
            machine=self._machine.machine(ledger),
            clock=ClockFacts(0, self._wall_offset_ns),
            cpus=self._machine.cpus(ledger, self._phases.adopted),
            memory=self._machine.memory(ledger, child.root if child else 0),
            roots=self._roots(),
            vms=self._vms.vms() if self._vms else {},
            update=self._update(),
            phases=self._phases.running(),
            handoffs=self._handoffs.log.all(),
        )

    def _roots(self) -> dict[str, RootFacts]:
        me, peers = self._root.me, self._root.peers
        self._kernel.read()
        views = [(peer.role, peer.view()) for peer in peers.all()]
        looks = [PeerLook(v.root, _NAMES[role], v.state, v.kernel_release) for role, v in views if v.root]
        mine = RootFacts(
            number=me.root,
            role="new" if peers.is_me("new", me.root) else "old",
            state=RootState.ALIVE,
            kernel_release=me.kernel_release,
            boot_id=me.boot_id,
            booted_ns=self._booted_ns,
            agent_version=__version__,
            devices=self._machine.devices(),
            console=self._kernel.lines.last,
            splats=self._kernel.lines.splats,
        )
        return {**self._known.look(looks), str(me.root): mine}

    def _update(self) -> UpdateFacts:
        coordinator, adoption = self._updates.coordinator, self._updates.adoption
        standing = coordinator.standing
        steps = {name: StepFacts(undo=name not in _LASTING) for name in STEPS}
        for each in standing.times:
            steps[each.step] = StepFacts(
                each.edge.value, each.begin_ns, each.end_ns, undo=each.step not in _LASTING
            )
        state = adoption.state
        return UpdateFacts(
            root=self._root.me.root,
            state=standing.state.value,
            wanted=standing.wanted[0] if standing.wanted else "",
            order=list(map(str, STEPS)),
            steps=steps,
            no_return=PhaseName.COMMIT,
            next=outlook.next_step(standing, coordinator.doing, coordinator.problem),
            error=coordinator.error,
            taking_over="" if state is AdoptionState.NONE else state.value,
            taking_over_error=adoption.error,
            lost=list(standing.lost),
        )

    def _is_being_ended(self, role: str) -> bool:
        """Whether the root in that role ends because somebody wants it to."""
        if role == "old":
            return self._updates.adoption.state is not AdoptionState.NONE
        standing = self._updates.coordinator.standing
        return standing.undoing or PhaseName.START not in standing.begun


class GuestTicks:
    """Those of this root's guests, none in a root that runs no VMs."""

    def __init__(self, manager: VmManager | None, clock: Callable[[], int]) -> None:
        self._manager = manager
        self._tails = TickTails(clock)

    def restart(self) -> None:
        """Leave out what was ticked until now."""
        self._tails.restart()

    def read(self) -> Iterator[tuple[str, Stretch]]:
        """What was ticked since the last call, by VM."""
        here = self._manager.here if self._manager else {}
        yield from self._tails.read({name: vm.folder.console_record for name, vm in here.items()})


def arena_address(guests: Guests) -> int | None:
    """Where the arena begins, None in a root without one."""
    try:
        return find_device().physical if guests.manager_or_none else None
    except MultirootError:
        return None
