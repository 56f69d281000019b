# SPDX-License-Identifier: GPL-2.0-or-later
"""Several VMs at once: all are prepared while all run, then they go group by group.

While one stands still, nothing is prepared for another: that would take the CPUs from it. One that fails
stays, and the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from multiroot.errors import BadRequestError, MultirootError
from multiroot.handoff.errors import OverdueError
from multiroot.handoff.giver import attempt
from multiroot.handoff.target import Target
from multiroot.handoff.terms import Terms, more_downtime, turns
from multiroot.phases import Phases
from multiroot.rpc.v1 import coordinator_pb2
from multiroot.vm.manager import VmManager


@dataclass(frozen=True)
class Outcome:
    """What became of one VM's handoff: the result, or why it stays.

    `gone`: there was an error, and yet another root owns it.
    """

    name: str
    result: coordinator_pb2.HandoffResult | None = None
    error: MultirootError | None = None
    gone: bool = False


@dataclass
class Leg:
    """One VM's way, as events in their order. All but `cancelled` are set in the end, also when it fails."""

    prepared: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    passed: asyncio.Event = field(default_factory=asyncio.Event)  # it runs in the taker, or stays
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: Outcome | None = None


class Evacuation:
    """Some VMs on their way to another root; `done` is told of each as soon as it is settled."""

    def __init__(
        self,
        manager: VmManager,
        names: Sequence[str],
        to: Target,
        phases: Phases,
        terms: Terms,
        done: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """Raises BadRequestError for a name that no VM has, or that comes twice."""
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadRequestError(f"named twice: {', '.join(twice)}")
        entries = {entry.name: entry.extent.size for entry in manager.host.arena.vms()}
        for name in names:
            if name not in entries:
                manager.get(name)
        self._turns = turns([(name, entries.get(name, 0)) for name in names], terms)
        self.legs: Mapping[str, Leg] = {name: Leg() for group in self._turns for name in group}
        self._manager = manager
        self._to = to
        self._phases = phases
        self._terms = terms
        self._done = done
        self._preparing = asyncio.Semaphore(terms.preparing)

    async def run(self) -> list[Outcome]:
        """Hand all of them over; what became of each, in the order in which they went."""
        tasks = [asyncio.create_task(self._go(name, leg)) for name, leg in self.legs.items()]
        try:
            await self._steer()
            if tasks:
                # Also when one has failed by a bug.
                await asyncio.wait(tasks)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [leg.outcome for leg in self.legs.values() if leg.outcome]

    async def _steer(self) -> None:
        for leg in self.legs.values():
            await leg.prepared.wait()
        for group in self._turns:
            for name in group:
                self.legs[name].turn.set()
            for name in group:
                await self.legs[name].passed.wait()

    async def _go(self, name: str, leg: Leg) -> None:
        try:
            leg.outcome = Outcome(name, await self._hand_over(name, leg))
        except MultirootError as error:
            leg.outcome = Outcome(name, error=error, gone=self._is_gone(name))
        finally:
            for event in (leg.prepared, leg.passed, leg.settled):
                event.set()
        self._done(leg.outcome)

    def _is_gone(self, name: str) -> bool:
        host = self._manager.host
        entry = host.arena.vm(name)
        return entry is not None and entry.owner.root != host.root

    async def _hand_over(self, name: str, leg: Leg) -> coordinator_pb2.HandoffResult:
        with attempt(self._manager, name, self._to, self._phases, self._terms, leg.cancelled) as going:
            await going.wait(self._preparing.acquire())
            try:
                await going.prepare()
            finally:
                self._preparing.release()
            leg.prepared.set()
            await going.wait(leg.turn.wait())
            noting = asyncio.create_task(_note(going.taken, leg.passed))
            try:
                return await going.transfer()
            finally:
                noting.cancel()


async def _note(taken: asyncio.Event, passed: asyncio.Event) -> None:
    """The next one may go while what is left of this one is cleaned up."""
    await taken.wait()
    passed.set()


def check(outcomes: Sequence[Outcome], again: str) -> None:
    """Raises why VMs stay, or what else went wrong, if anything did; `again` is the command that tries it
    again, without their names, which come last: a VM may be called like a subcommand.

    Of a single VM it is its own error.
    """
    failed = [(outcome, outcome.error) for outcome in outcomes if outcome.error]
    if not failed:
        return
    if len(outcomes) == 1:
        raise failed[0][1]
    kinds = {type(error) for _, error in failed}
    kind = kinds.pop() if len(kinds) == 1 else MultirootError
    stay = {outcome.name: error.message for outcome, error in failed if not outcome.gone}
    gone = {outcome.name: error.message for outcome, error in failed if outcome.gone}
    what, hint = [], "see `multiroot vm list`"
    if limits := [error.limit_ms for _, error in failed if isinstance(error, OverdueError)]:
        again = f"{again} {more_downtime(max(limits))}"
    if stay:
        what.append(f"{len(stay)} of {len(outcomes)} VMs stay: {_reasons(stay)}")
        others = "the others were handed over; " if len(failed) < len(outcomes) else ""
        hint = f"{others}try these again: `{again} {' '.join(stay)}`"
    if gone:
        what.append(f"in the other root already: {_reasons(gone)}")
    raise kind("; ".join(what), hint)


def _reasons(messages: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {message}" for name, message in messages.items())
