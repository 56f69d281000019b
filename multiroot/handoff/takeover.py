# SPDX-License-Identifier: GPL-2.0-or-later
"""From a guest that stands still in the giver to one that runs here: the taker's part of the blackout."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from multiroot.arena.switch import Outcome, Step
from multiroot.device.passthrough import Comparison
from multiroot.errors import BadRequestError, CommandError, ConflictError, MultirootError
from multiroot.failpoints import ORDERS, FailPoint, reach, reach_in_thread
from multiroot.handoff.incoming import Blackout, DeviceMove, Incoming, Taken
from multiroot.handoff.terms import GROUP_MOST
from multiroot.passthrough.devices import Devices
from multiroot.phase_names import PhaseName
from multiroot.phases import Phase, Phases
from multiroot.vm.host import Host
from multiroot.vm.instance import Instance, VmState

log = logging.getLogger(__name__)


class Takeover:
    """Takes VMs that are prepared and whose state is on its way; `side` names this root in phases."""

    def __init__(self, host: Host, side: str, discard: Callable[[Instance], Awaitable[None]]) -> None:
        """`discard` ends a VMM and forgets its VM."""
        self._host = host
        self._side = side
        self._discard = discard
        # Of its own, so that no VM that stands still waits for threads that do something else.
        self._resuming = ThreadPoolExecutor(GROUP_MOST, "resume")

    async def run(self, incoming: Incoming) -> Taken:
        """Take it as soon as its VMM has loaded the state, and let the guest go on.

        Raises what `Taker.transfer` raises.
        """
        vm = incoming.vm
        try:
            with vm.vmm.unread():
                loop = asyncio.get_running_loop()
                end = await loop.run_in_executor(self._resuming, self._resume_first, incoming)
        except (CommandError, ConflictError):
            if incoming.taken:
                await self._give_back(incoming)
            raise
        vm.state = vm.live_state
        await reach(FailPoint.TAKER_RESUMED, vm.name)
        phases = incoming.phases
        resumed_ns, before = end.resumed.resumed_ns, end.resumed.loaded_ns
        # A VMM may have loaded all that it needs before the last byte has come.
        arrived_ns = min(before, incoming.connected.result().last_ns or before)
        phases.add(_span(PhaseName.LOAD_DEVICE_STATE, self._side, arrived_ns, before, blackout=True))
        marks = {
            PhaseName.WAIT_FOR_COMPLETION: end.stamps[Step.HEARD],
            PhaseName.CHECK_STATE: end.stamps[Step.CHECKED],
            PhaseName.COMMIT: end.stamps[Step.TAKEN],
            PhaseName.SWITCH_DMA: end.switched_ns,
            PhaseName.RESUME: resumed_ns,
        }
        if end.seen is None:
            del marks[PhaseName.SWITCH_DMA]
        for name, at in marks.items():
            phases.add(_span(name, self._side, before, at, blackout=True))
            before = at
        if end.told_ns:
            phases.add(_span(PhaseName.TELL_BRIDGE, self._side, resumed_ns, end.told_ns, blackout=False))
        settled = asyncio.create_task(self._settle_in(vm))
        return Taken(
            vm.owner.epoch, resumed_ns, settled, self._move(incoming, end.seen), list(phases.finished)
        )

    def _resume_first(self, incoming: Incoming) -> Blackout:
        with self._host.agent.first():
            return self._resume(incoming)

    def _resume(self, incoming: Incoming) -> Blackout:
        """The taker's part of the blackout, in a thread of its own: see Vmm.take.

        One call, unless something else is to be done between its steps.
        """
        vm, switch = incoming.vm, incoming.switch
        if ORDERS.armed:
            self._take(incoming, Step.CHECKED)
            reach_in_thread(FailPoint.TAKER_LOADED, vm.name)
        alone = not (ORDERS.armed or vm.paused or incoming.device)
        self._take(incoming, Step.GONE if alone else Step.TAKEN)
        seen = self._switch(incoming)
        switched = self._host.clock()
        reach_in_thread(FailPoint.TAKER_OWNED, vm.name)
        told = 0
        if vm.paused:
            resumed = vm.vmm.stay_loaded()
        else:
            self._take(incoming, Step.GONE)
            incoming.runs_here()
            told = self._host.clock()
            resumed = vm.vmm.resume_loaded()
        # At once: from here on what this agent does is to be no reason for the guest to wait. Its VMM comes
        # first until it has announced the guest, unless another guest stands still.
        self._host.agent.ease(vm.name, lambda: vm.vmm.urgent(False))
        return Blackout(resumed, switch.stamps(), switched, told, seen)

    def _take(self, incoming: Incoming, until: Step) -> None:
        """Bring the VM's switch to a step. Raises CommandError when the VMM does not accept the state or does
        not go on, ConflictError when it was given up, FencedError when the giver has taken it back.
        """
        vm, switch, state = incoming.vm, incoming.switch, incoming.connected.result()
        try:
            outcome = vm.vmm.take(switch, until)
        except CommandError:
            if switch.step < Step.CHECKED:
                state.raise_damage()
            raise
        finally:
            if switch.step >= Step.TAKEN:
                vm.owner = vm.word.taken(switch, incoming.giver, self._host.root)
        if outcome is Outcome.DAMAGED:
            state.check()
        elif outcome is Outcome.ABORTED:
            raise aborted(vm.name)
        elif outcome is Outcome.FENCED:
            vm.word.taken(switch, incoming.giver, self._host.root)

    def _switch(self, incoming: Incoming) -> Comparison | None:
        """Make the VM's device reach its memory through our tables; ConflictError leaves it the giver's."""
        vm = incoming.vm
        if incoming.device is None:
            return None
        return devices_of(self._host).take(vm.definition.function, incoming.giver.root, vm.entry.extent)

    def _move(self, incoming: Incoming, seen: Comparison | None) -> DeviceMove | None:
        vm = incoming.vm
        if incoming.device is None or seen is None:
            return None
        after = devices_of(self._host).translation(vm.definition.function, vm.entry.extent)
        return DeviceMove(incoming.device.translation, after, seen)

    async def _give_back(self, incoming: Incoming) -> None:
        """The VMM refused to let the guest run, or had ended: the giver may have it back, it never ran here.

        The VM's folder goes last. If this agent dies before, its successor still knows the VM that the owner
        word says is this root's.
        """
        vm = incoming.vm
        await vm.end(VmState.FAILED)
        vm.owner = vm.word.take(vm.owner, incoming.giver.root)
        await self._discard(vm)

    async def _settle_in(self, vm: Instance) -> list[Phase]:
        """Do what neither the running guest nor its giver need wait for."""
        phases = Phases(self._side, self._host.clock)
        try:
            with phases.phase(PhaseName.ANNOUNCE, vm=vm.name):
                if vm.taps:
                    await vm.vmm.announce()
        finally:
            self._host.agent.calm(vm.name)
            try:
                vm.keep()
            except MultirootError as error:
                # The guest runs here, and its owner word says so to the next agent, too.
                log.error("%s: %s", vm.name, error)
        return list(phases.finished)


def aborted(name: str) -> ConflictError:
    """The error for a VM that was given up before it was taken."""
    return ConflictError(f"the handoff of {name} was aborted")


def _span(name: str, side: str, start_ns: int, end_ns: int, *, blackout: bool) -> Phase:
    return Phase(name, side, start_ns, max(0, end_ns - start_ns), blackout=blackout)


def devices_of(host: Host) -> Devices:
    """Raises BadRequestError if this root can take no devices."""
    if host.devices is None:
        raise BadRequestError(f"root {host.root} takes no devices")
    return host.devices
