# SPDX-License-Identifier: GPL-2.0-or-later
"""The giver's half of a handoff.

It prepares the taker while the guest runs and has its VMM send the device state once. Then it lets go of the
VM, or takes it back.

Before anything is undone here, the owner word is raised by compare-and-swap: that fences a taker who is still
at work. If the word shows that the taker was faster, this root never runs the VM again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

from multiroot.arena.errors import FencedError
from multiroot.arena.layout import Owner
from multiroot.errors import CommandError, ConflictError, MultirootError, PeerLostError, WaitTimeoutError
from multiroot.failpoints import FailPoint, garbage, reach
from multiroot.handoff import wire
from multiroot.handoff.account import phases_of, result_of, result_without_answer
from multiroot.handoff.endings import Endings
from multiroot.handoff.errors import GivenUpError
from multiroot.handoff.late_traffic import LateTraffic
from multiroot.handoff.relay import OutgoingState
from multiroot.handoff.target import Target
from multiroot.handoff.terms import USUAL, Terms
from multiroot.passthrough import messages as device
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.rpc import phases as phase_messages
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import common_pb2, coordinator_pb2, device_pb2, handoff_pb2, handoff_pb2_grpc
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.manager import VmManager
from multiroot.vm.messages import definition_to_proto, extent_to_proto, notices_to_proto, stations_to_proto
from multiroot.vm.vmm import Saved, VmmGoneError

log = logging.getLogger(__name__)

PREPARE_TIMEOUT_S = 180.0  # the guest runs on meanwhile, and a VMM starts slowly in a VM of a VM
TRANSFER_TIMEOUT_S = 30.0
ABORT_TIMEOUT_S = 5.0

T = TypeVar("T")
TransferCall = grpc.aio.UnaryStreamCall[handoff_pb2.TransferRequest, handoff_pb2.TransferProgress]


@dataclass(frozen=True)
class Settled:
    """What was left to do in the taker for a guest that runs there, and why not all of it could be done."""

    phases: Sequence[common_pb2.Phase] = ()
    error: MultirootError | None = None


async def hand_over(
    manager: VmManager, name: str, to: Target, phases: Phases, terms: Terms = USUAL
) -> coordinator_pb2.HandoffResult:
    """Hand the running VM `name` to `to`; raises what `Attempt` raises."""
    with attempt(manager, name, to, phases, terms) as going:
        await going.prepare()
        return await going.transfer()


@contextmanager
def attempt(
    manager: VmManager,
    name: str,
    to: Target,
    phases: Phases,
    terms: Terms,
    cancelled: asyncio.Event | None = None,
) -> Iterator[Attempt]:
    """A handoff that is about to begin, of a VM that does nothing else in the body.

    Raises ConflictError if it does not run here, is busy, or came here paused and has not run since: a QEMU
    that has loaded a state and not run the guest saves its own clock for the guest's.
    """
    vm = manager.live(name)
    if vm.untouched:
        raise ConflictError(
            f"{name} came here paused and has not run since, so its clock would be lost",
            f"let it run: multiroot vm resume {name}",
        )
    with vm.busy("handed over"):
        made = Attempt(vm, to, phases, terms, cancelled or asyncio.Event())
        try:
            yield made
        finally:
            made.close()


class Attempt:
    """One handoff: `prepare`, `wait` for a turn if there are others, `transfer`.

    Whatever happens in one of them, exactly one root runs the VM when it comes back. It raises what went
    wrong when the VM goes on here, or when the taker took it and failed.
    """

    def __init__(
        self, vm: Instance, to: Target, phases: Phases, terms: Terms, cancelled: asyncio.Event
    ) -> None:
        """It is given up when `cancelled` is set before the VM is the taker's."""
        self._vm = vm
        self._root = vm.host.root
        self._to = to
        self._phases = phases
        self._endings = Endings(vm, to, terms, cancelled)
        self._stub = handoff_pb2_grpc.HandoffServiceStub(to.agent)
        self._taker = f"root {to.root}'s agent"
        self._outgoing: OutgoingState | None = None
        self._late = LateTraffic(vm, to.root, phases.side)

    @property
    def taken(self) -> asyncio.Event:
        """Set when the taker runs the guest; what is left is to clean up."""
        return self._endings.taken

    async def prepare(self) -> None:
        """Have the taker wait for the device state, connected with our VMM, while the guest runs."""
        await self.wait(self._prepare())

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Whatever has to be waited for between `prepare` and `transfer`."""
        try:
            return await self._endings.unless_ended(work, self._endings.stopped())
        except BaseException as error:
            await self._settle(error)
            self._endings.say_if_failed(error)
            raise

    async def transfer(self) -> coordinator_pb2.HandoffResult:
        """Hand it over.

        If the taker's answer got lost but the arena shows that it is the owner, the result lacks what only
        the taker knows (resumed_ns is 0).
        """
        try:
            return await self._endings.unless_ended(self._hand_over(), self._endings.overdue())
        except BaseException as error:
            outcome = await self._settle(error)
            if outcome is None or not isinstance(error, MultirootError):
                self._endings.say_if_failed(error)
                raise
            return outcome

    def close(self) -> None:
        """When all is settled, nothing is on its way any more."""
        if self._outgoing:
            self._outgoing.close()
        self._late.close()

    async def _settle(self, error: BaseException) -> coordinator_pb2.HandoffResult | None:
        """Also when this call is cancelled: a VM must not be left stopped in both roots."""
        return await asyncio.shield(asyncio.create_task(self.settle(error)))

    async def _prepare(self) -> None:
        await self._vm.check_servers()
        with self._phases.phase(PhaseName.PREPARE, vm=self._vm.name):
            # The hints take our VMM some time, during which the taker's starts.
            connecting = asyncio.create_task(self._connect())
            hinting = asyncio.create_task(self._hints())
            try:
                hints, _ = await asyncio.gather(hinting, connecting)
            finally:
                # Neither goes on when the other has failed: nobody would close the connection.
                connecting.cancel()
                hinting.cancel()
                await asyncio.wait({connecting, hinting})
            # A look at all files that the VMM has open.
            await asyncio.to_thread(self._late.open)
            if hints:
                # Not later: what is done for one in its turn, all that come after it wait for.
                request = handoff_pb2.HintRequest(name=self._vm.name, hints=hints)
                with translated(self._taker):
                    await self._stub.Hint(request, timeout=PREPARE_TIMEOUT_S)

    async def _hand_over(self) -> coordinator_pb2.HandoffResult:
        await reach(FailPoint.GIVER_TRANSFER, self._vm.name)
        request = handoff_pb2.TransferRequest(name=self._vm.name)
        call = self._stub.Transfer(request, timeout=TRANSFER_TIMEOUT_S)
        try:
            answer = await self._transfer(call)
            self.taken.set()
            await reach(FailPoint.GIVER_TAKEN, self._vm.name)
            # Before anything else that takes time: a sender waits for each of them.
            self._late.pass_on()
            settled = await self._settled(call)
        finally:
            call.cancel()
        saved = await self._vm.vmm.saved()
        result = await self._let_go(answer, settled, saved)
        if settled.error:
            raise settled.error
        return result

    async def _settled(self, call: TransferCall) -> Settled:
        """Wait until the network knows where the guest runs. Until then more may come for it here."""
        try:
            with translated(self._taker):
                settled = Settled((await self._next(call, "settled")).settled.phases)
        except MultirootError as error:
            log.warning("whether %s is settled in root %d: %s", self._vm.name, self._to.root, error)
            settled = Settled(error=None if _answer_lost(error) else error)
        self._late.pass_on()
        return settled

    async def _connect(self) -> None:
        """Connect our VMM with the taker's, through both agents."""
        stream = await self._prepare_taker()
        try:
            sock = await wire.connect(stream)
        except OSError as error:
            raise PeerLostError(f"{self._taker} does not answer on {stream.host}:{stream.port}") from error
        self._outgoing = OutgoingState(sock, stream.key, self._vm.name, self._phases.clock, self._heard)
        with self._outgoing.vmm_end as end:
            sock.sendall(await garbage(FailPoint.GIVER_WIRE, self._vm.name))
            end.sendall(await garbage(FailPoint.GIVER_STREAM, self._vm.name))
            await self._vm.vmm.connect(end.fileno())

    def _heard(self) -> None:
        """The taker has hung up; in the relay's thread, for the event loop hears of it later."""
        # Not so when it was given up: then what is in the tap is for the guest that goes on here.
        if self._vm.word.read().root != self._root:
            self._late.pass_on()

    async def _prepare_taker(self) -> wire.Endpoint:
        vm = self._vm
        request = handoff_pb2.PrepareRequest(
            definition=definition_to_proto(vm.definition),
            extents=[extent_to_proto(vm.entry.extent)],
            giver=self._root,
            epoch=vm.owner.epoch,
            vmm=vm.vmm.name,
            vmm_version=vm.vmm.version,
            cpu=vm.cpu,
            device=await self._describe_device(),
            notices=notices_to_proto(vm.notices),
            stations=stations_to_proto(vm.stations),
            paused=vm.paused,
        )
        await reach(FailPoint.GIVER_PREPARE, vm.name)
        with translated(self._taker):
            answer = await self._stub.Prepare(request, timeout=PREPARE_TIMEOUT_S)
        await reach(FailPoint.GIVER_PREPARED, vm.name)
        for phase in answer.phases:
            self._phases.add(phase_messages.from_proto(phase))
        return wire.Endpoint(answer.stream.host, answer.stream.port, answer.stream.key)

    async def _hints(self) -> bytes:
        """What makes the taker faster, and nothing that it needs."""
        try:
            return await self._vm.vmm.hints()
        except CommandError as error:
            log.warning("the taker of %s will load its state more slowly: %s", self._vm.name, error)
            return b""

    async def _describe_device(self) -> device_pb2.DeviceState | None:
        """Soft state of the device that the VM owns; it does not change before the switch."""
        vm = self._vm
        if not vm.definition.function or vm.host.devices is None:
            return None
        state = await asyncio.to_thread(vm.host.devices.describe, vm.definition.function, vm.entry.extent)
        return device.state_to_proto(state)

    async def _transfer(self, call: TransferCall) -> handoff_pb2.Taken:
        """Only when the taker's VMM reads from the connection let ours stop the guest and write."""
        with translated(self._taker):
            # It may refuse; the guest need not even notice.
            await self._next(call, "ready")
            await reach(FailPoint.GIVER_READY, self._vm.name)
            await self._vm.check_servers()
            # One that has ended by now must not be thought active again.
            self._endings.check_running()
            self._late.listen()
            self._vm.hurry(True)
            self._vm.state = VmState.FROZEN
            await self._vm.vmm.send()
            self._endings.sending.set()
            await reach(FailPoint.GIVER_SENDING, self._vm.name)
            with self._vm.vmm.unread():
                return (await self._next(call, "taken")).taken

    async def _next(self, call: TransferCall, event: str) -> handoff_pb2.TransferProgress:
        """What the taker says next, which has to be this; its errors come as grpc's."""
        progress = await call.read()
        if not isinstance(progress, handoff_pb2.TransferProgress) or progress.WhichOneof("event") != event:
            raise PeerLostError(f"{self._taker} broke off the transfer of {self._vm.name}")
        return progress

    async def _let_go(
        self, answer: handoff_pb2.Taken, settled: Settled, saved: Saved
    ) -> coordinator_pb2.HandoffResult:
        told = (*answer.phases, *settled.phases)
        assert self._outgoing
        sent_ns = self._outgoing.last_ns
        phases = phases_of(self._vm.name, self._phases.side, told, saved, sent_ns)
        for phase in (*phases, *self._late.passed):
            self._phases.add(phase)
        with self._phases.phase(PhaseName.END_OLD_QEMU, vm=self._vm.name):
            await self._gone(self._vm.word.read())
            # Those that have come to the tap until it was gone.
            self._late.pass_on()
        return result_of(self._vm.name, answer, saved)

    async def settle(self, error: BaseException) -> coordinator_pb2.HandoffResult | None:
        """Make sure that one root runs the VM: the result if the taker does and only its answer was lost."""
        vm = self._vm
        log.warning("handing %s over: %s", vm.name, error or type(error).__name__)
        if not vm.active:
            vm.hurry(False)
            if vm.state is not VmState.HANDED and not isinstance(error, PeerLostError):
                await self._tell_taker()
            return None
        await reach(FailPoint.GIVER_SETTLE, vm.name)
        try:
            vm.owner = vm.word.take(vm.owner, self._root)
        except FencedError as fenced:
            owner = Owner(fenced.root, fenced.epoch)
            if owner.root != self._root:
                saved = await vm.vmm.so_far()
                await self._gone(owner)
                fine = self.taken.is_set() or _answer_lost(error)
                return result_without_answer(vm.name, owner, saved) if fine else None
            vm.owner = owner  # The taker could not run it and gave it back.
        await self._go_on()
        if not isinstance(error, PeerLostError):
            await self._tell_taker()
        return None

    async def _go_on(self) -> None:
        """Let the guest go on here, however far the VMM has come with sending; one that does not answer lets
        it go on when it does.
        """
        self._vm.hurry(False)
        await self._vm.patiently(self._resume)

    async def _resume(self) -> None:
        vm = self._vm
        try:
            with self._phases.phase(PhaseName.RESUME_IN_GIVER, vm=vm.name):
                failure = await vm.vmm.cancel()
                if vm.definition.function and vm.host.devices is not None:
                    vm.host.devices.take_back(vm.definition.function, vm.entry.extent)
                if failure:
                    log.warning("the VMM of %s did not send its state: %s", vm.name, failure)
                await vm.resume()
        except (VmmGoneError, ConflictError) as error:
            log.error("%s cannot go on: %s", vm.name, error)
            await vm.fail()

    async def _tell_taker(self) -> None:
        """Let the taker clean up; it is fenced already, so this may fail."""
        request = handoff_pb2.AbortRequest(name=self._vm.name)
        try:
            await reach(FailPoint.GIVER_ABORT, self._vm.name)
            with translated(self._taker):
                await self._stub.Abort(request, timeout=ABORT_TIMEOUT_S)
        except MultirootError as error:
            log.warning("the taker of %s does not know of the abort: %s", self._vm.name, error)

    async def _gone(self, owner: Owner) -> None:
        """The VM is another root's: end what is left of it here."""
        self._vm.owner = owner
        self._vm.hurry(False)
        await self._vm.end(VmState.HANDED)


def _answer_lost(error: BaseException) -> bool:
    """Whether the taker may well be fine, as opposed to having said that it failed."""
    return isinstance(error, (PeerLostError, WaitTimeoutError, GivenUpError))
