# SPDX-License-Identifier: GPL-2.0-or-later
"""The last handoffs that this root has given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from multiroot.errors import MultirootError
from multiroot.rpc.v1 import coordinator_pb2
from multiroot.watch.facts import HandoffFacts, Stage

KEPT = 16


class HandoffLog:
    """Notes each handoff when it begins and when it is settled. `clock` is the machine-wide one."""

    def __init__(self, giver: int, clock: Callable[[], int], changed: Callable[[], None]) -> None:
        """`giver` is this root's number; `changed` is called after each note."""
        self._giver = giver
        self._clock = clock
        self._changed = changed
        self._noted: dict[str, HandoffFacts] = {}
        self.settled: Counter[Stage] = Counter()  # of all that this agent has given

    def all(self) -> dict[str, HandoffFacts]:
        """By `VM/EPOCH`, oldest first."""
        return {key: replace(each) for key, each in self._noted.items()}

    def begin(self, vm: str, taker: int, epoch: int) -> None:
        """A VM that is owned with `epoch` is about to be handed to root number `taker`."""
        facts = HandoffFacts(vm, self._giver, taker, epoch + 1, began_ns=self._clock())
        key = f"{vm}/{facts.epoch}"
        self._noted.pop(key, None)
        self._noted[key] = facts
        while len(self._noted) > KEPT:
            del self._noted[next(iter(self._noted))]
        self._changed()

    def end(
        self, vm: str, result: coordinator_pb2.HandoffResult | None, error: MultirootError | None
    ) -> None:
        """What became of it: the result, or why it stays."""
        key = next((key for key, each in reversed(self._noted.items()) if each.vm == vm), None)
        if key is None:
            return
        facts = self._noted[key]
        if result is not None:
            facts.stage = Stage.DONE
            facts.stopped_ns, facts.resumed_ns = result.stopped_ns, result.resumed_ns
            facts.device_state_bytes = result.device_state_bytes
            facts.ram_bytes_copied = result.ram_bytes_copied
        else:
            facts.stage, facts.error = Stage.STAYED, str(error or "")
        self.settled[facts.stage] += 1
        self._changed()
