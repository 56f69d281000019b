# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that a taker has prepared, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from multiroot.arena.layout import Owner
from multiroot.arena.switch import Step, Switch
from multiroot.device.passthrough import Comparison, Translation
from multiroot.handoff import wire
from multiroot.handoff.relay import IncomingState
from multiroot.passthrough.devices import DeviceState
from multiroot.phases import Phase, Phases
from multiroot.vm.host import Arrival
from multiroot.vm.instance import Instance
from multiroot.vm.vmm import Resumed

log = logging.getLogger(__name__)

# A giver that prepared and never connected is dead or has changed its mind.
PREPARED_FOR_S = 120.0
# One that has connected may have many others to hand over first. When its agent ends, so does the connection.
CONNECTED_FOR_S = 1800.0


@dataclass
class Incoming:
    """A prepared VM. `switch` is how it is taken: from its step TAKEN on there is no way back. Whoever takes
    and whoever aborts are in different threads: one of them is first.
    """

    vm: Instance
    giver: Owner
    stream: wire.Listener
    prepared_at: float  # in the event loop's time, s
    expiry: asyncio.TimerHandle
    connected: asyncio.Task[IncomingState]
    phases: Phases  # of the transfer
    switch: Switch
    hinted: asyncio.Task[None] | None = None
    transferring: bool = False
    device: DeviceState | None = None
    arrival: Arrival | None = None  # of its cards, for the guests' network

    def runs_here(self) -> None:
        """Let the network and the giver know, at once and before anybody is told by words: frames that came
        meanwhile are still with the giver. If this fails, both hear it later.
        """
        try:
            if self.arrival:
                self.arrival.tell()
        except OSError as error:
            log.warning("%s: its network hears later that it is here: %s", self.vm.name, error.strerror)
        self.connected.result().hang_up()

    @property
    def taken(self) -> bool:
        return self.switch.taken

    def abandon(self) -> bool:
        """No more taking; False if it has been taken already."""
        return self.switch.abort()

    @property
    def waits_until(self) -> float:
        """When it is given up unless the giver has begun to transfer it, in the event loop's time, s."""
        connected = self.connected
        if not connected.done() or connected.cancelled() or connected.exception():
            return self.prepared_at + PREPARED_FOR_S
        return self.prepared_at + (0 if connected.result().ended else CONNECTED_FOR_S)

    def disconnect(self) -> None:
        """Give up the connection, whether or not the giver has come."""
        if not self.connected.cancel() and not self.connected.cancelled() and not self.connected.exception():
            self.connected.result().close()
        self.switch.close()
        if self.arrival:
            self.arrival.close()


@dataclass(frozen=True)
class DeviceMove:
    """How the VM's own device came over: its translations before and after, and how they compared."""

    before: Translation
    after: Translation
    seen: Comparison


@dataclass(frozen=True)
class Taken:
    """What became of a transfer; times in ns on the machine-wide clock.

    `settled` is done when the network knows where the guest is, with the phases since it runs here.
    """

    epoch: int
    resumed_ns: int
    settled: asyncio.Task[list[Phase]]
    device: DeviceMove | None = None
    phases: list[Phase] = field(default_factory=list)


@dataclass(frozen=True)
class Blackout:
    """The taker's part of a blackout; times in ns on the machine-wide clock."""

    resumed: Resumed
    stamps: dict[Step, int]
    switched_ns: int
    told_ns: int  # when network and giver had been told; 0 if the guest is paused
    seen: Comparison | None
