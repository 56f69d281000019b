# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs faults one after the other in one lab machine, which is booted again only where it has to be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from multiroot.errors import MultirootError, WaitTimeoutError
from multiroot.faults import check
from multiroot.faults.fault import During, Fate, Fault, Outcome
from multiroot.faults.ground import ROOTS, Ground, Sight

REACHED_S = 120.0
SETTLED_S = 180.0  # a taker's VMM whose giver is gone waits for 120 s


class Operation(threading.Thread):
    """What is under way while a fault strikes. `said` is how it ended, "" if well."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.said = ""
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except MultirootError as error:
            self.said = str(error)


class Runner:
    """Faults on one ground. `seen` is told each outcome."""

    def __init__(self, ground: Ground, seen: Callable[[Outcome], object]) -> None:
        self._ground = ground
        self._seen = seen
        self._standing: dict[bool, dict[str, Any]] = {}
        self._versions: dict[str, str] = {}

    def run(self, faults: Iterable[Fault]) -> list[Outcome]:
        """All of them; those that end no root come first where the order is the caller's."""
        outcomes = []
        for fault in faults:
            outcomes.append(self._run(fault))
            self._seen(outcomes[-1])
        return outcomes

    def _run(self, fault: Fault) -> Outcome:
        outcome = Outcome(fault.name, fault.step, fault.what, date=datetime.now(UTC).date().isoformat())
        try:
            self._get_ready(fault)
            outcome.versions = self._versions
            self._try(fault, outcome)
        except MultirootError as error:
            outcome.problems.append(str(error))
        if outcome.problems or "old" in fault.ends:
            self._start_over()
        return outcome

    def _start_over(self) -> None:
        with suppress(MultirootError):
            self._ground.down()
        self._standing.clear()

    def _get_ready(self, fault: Fault) -> None:
        joined = fault.during is not During.LAUNCH
        ground = self._ground
        try:
            ground.ready(joined=joined)
        except MultirootError:
            # What an earlier fault left behind is that fault's problem.
            self._start_over()
            ground.ready(joined=joined)
        if joined not in self._standing:
            self._standing[joined] = ground.standing(joined=joined)
        if not self._versions:
            self._versions = ground.versions()

    def _try(self, fault: Fault, outcome: Outcome) -> None:
        ground = self._ground
        for aimed in fault.orders:
            ground.arm(aimed.root, aimed.order)
        if fault.before:
            fault.before(ground)
        operation = Operation(self._work(fault))
        struck = self._strike(fault, operation)
        if fault.after:
            operation.join(SETTLED_S)
            fault.after(ground)
        fate = self._settle(fault, operation)
        outcome.recovery_s = round(time.monotonic() - struck, 1)
        outcome.fate, outcome.said = fate.value, operation.said
        self._disarm(fault)
        if fate not in fault.fates:
            outcome.problems.append(f"the VM {fate.value}")
        if "old" in fault.ends:
            outcome.problems += check.alive_alone(ground)
        else:
            outcome.problems += self._check(fault, fate)

    def _work(self, fault: Fault) -> Callable[[], object]:
        ground = self._ground
        if fault.during is During.HANDOFF:
            return lambda: ground.hand_over("new", terms=fault.terms)
        return {
            During.LAUNCH: ground.launch_once,
            During.RELEASE: ground.release,
            During.UPDATE: ground.commit,
        }[fault.during]

    def _strike(self, fault: Fault, operation: Operation) -> float:
        """Wait for the first order's point, strike, and let what pauses there go on; when that was."""
        if not fault.orders:
            if fault.strike:
                fault.strike(self._ground)
            return time.monotonic()
        first = fault.orders[0]
        # The agent of an order to exit is gone before it can say that the point was reached.
        with suppress(MultirootError):
            self._ground.reached(first.root, first.order.point, REACHED_S)
        struck = time.monotonic()
        if fault.strike:
            fault.strike(self._ground)
            if "new" in fault.ends:
                # Nobody may go on there before it is dead.
                self._ground.until(
                    lambda: self._ground.child_state() != "ready", REACHED_S, "the new root did not die"
                )
            if not first.order.seconds:
                self._disarm(fault)
        return struck

    def _disarm(self, fault: Fault) -> None:
        """Take back the orders where some were given: another root may not be there at all."""
        if "old" not in fault.ends:
            given = {aimed.root for aimed in fault.orders}
            self._ground.disarm([root for root in ROOTS if root in given and root not in fault.ends])

    def _settle(self, fault: Fault, operation: Operation) -> Fate:
        if "old" in fault.ends:
            return check.fate_alone(self._ground, SETTLED_S)
        found: list[Fate] = []
        seen: dict[str, Sight] = {}

        def settled() -> bool:
            if fault.during is not During.HANDOFF and operation.is_alive():
                return False
            if "new" in fault.ends and self._ground.child_state():
                # Only when a dead root is released is it certain that nothing in it runs any more.
                operation.join(SETTLED_S)
                self._ground.release(force=True)
            seen.clear()
            for root in _living(fault):
                seen[root] = self._ground.see(root)
            fate = check.fate_of(seen)
            found.append(fate) if fate else None
            return fate is not None

        try:
            self._ground.until(settled, SETTLED_S, f"{fault.name}: the VM's fate was not settled")
        except WaitTimeoutError as error:
            raise WaitTimeoutError(f"{error.message}: {seen}") from error
        operation.join(SETTLED_S)
        if operation.is_alive():
            raise WaitTimeoutError(f"the {fault.during} did not end")
        return found[-1]

    def _check(self, fault: Fault, fate: Fate) -> list[str]:
        ground = self._ground
        problems: list[str] = []
        if fate is Fate.LOST:
            problems += check.forgotten(ground)
        else:
            problems += check.alive(ground, fate, fault)
        if problems:
            return problems
        ground.ready(joined=True)
        problems += check.goes_there_and_back(ground, blind=fault.blind)
        if fault.during is During.LAUNCH:
            ground.ready(joined=False)
        joined = fault.during is not During.LAUNCH
        problems += check.differences(self._standing[joined], ground.standing(joined=joined))
        if resets := ground.lab.state.resets():
            problems.append(f"the machine was reset {resets} times")
        return problems


def _living(fault: Fault) -> list[str]:
    """Roots that have to answer after it."""
    there = fault.during is During.HANDOFF and "new" not in fault.ends
    return [root for root in ROOTS if root == "old" or there]
