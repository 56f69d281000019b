# SPDX-License-Identifier: GPL-2.0-or-later
"""The two threads that a device state passes: one in the giver's agent, one in the taker's.

Each agent keeps its end of the TCP connection and gives its VMM one end of a socket pair. The giver's thread
puts what its VMM writes into frames; the taker's checks each frame and only then passes the data on. Threads,
sockets and buffers exist before the guest stops: nothing is opened, imported or allocated in the blackout.
"""

from __future__ import annotations

import logging
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

from multiroot.handoff import wire
from multiroot.handoff.frames import MAX_DATA, DamagedStateError, Opener, Sealer
from multiroot.phases import Clock

log = logging.getLogger(__name__)


class Relay(ABC):
    """A thread between the wire and a VMM; `vmm_end` is for the VMM, and whoever gave it away closes it."""

    def __init__(self, sock: socket.socket, vm: str, clock: Clock) -> None:
        """Takes `sock`, connected to the other agent and blocking."""
        self.last_ns = 0  # when the last of the state was here, on `clock`
        self._clock = clock
        self._wire = sock
        self._vmm, self.vmm_end = socket.socketpair()
        for end in (self._vmm, self.vmm_end):
            wire.make_room_to_send(end)
        self._vm = vm
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"relay {vm}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off whatever is not through yet; twice is fine."""
        self._closing = True
        for sock in (self._vmm, self._wire):
            _hang_up(sock)
        self._thread.join()
        for sock in (self._vmm, self._wire, self.vmm_end):
            sock.close()

    @abstractmethod
    def _run(self) -> None:
        """The thread."""


class OutgoingState(Relay):
    """The giver's half."""

    def __init__(
        self, sock: socket.socket, key: bytes, vm: str, clock: Clock, heard: Callable[[], None]
    ) -> None:
        """`heard` is called, in the thread, when the taker has hung up after all was sent. It has the VM
        then, or it never will.
        """
        self._heard = heard
        self._sealer = Sealer(key)
        self._buffer = memoryview(bytearray(MAX_DATA))
        super().__init__(sock, vm, clock)

    def _run(self) -> None:
        try:
            while size := self._vmm.recv_into(self._buffer):
                self.last_ns = self._clock()
                self._send(self._buffer[:size])
            # Our VMM has closed its end: that was all. Not so if it was us who closed it.
            if not self._closing:
                self._send(self._buffer[:0])
        except OSError as error:
            if not self._closing:
                log.warning("the device state of %s does not get through: %s", self._vm, error.strerror)
        finally:
            # What our VMM still writes has to fail: it must not take a state for sent that is not.
            _hang_up(self._vmm)
        self._wait_for_taker()

    def _wait_for_taker(self) -> None:
        with suppress(OSError):  # of a connection that is gone all is known
            self._wire.shutdown(socket.SHUT_WR)
            self._wire.recv(1)
        if not self._closing:
            self._heard()

    def _send(self, data: memoryview) -> None:
        prefix = self._sealer.seal(data)
        sent = self._wire.sendmsg((prefix, data))
        if sent < len(prefix) + len(data):
            self._wire.sendall((prefix + bytes(data))[sent:])


class IncomingState(Relay):
    """The taker's half."""

    def __init__(
        self, sock: socket.socket, key: bytes, vm: str, clock: Clock, ended: Callable[[bool], None]
    ) -> None:
        """`ended` is told at the end whether all of the state was passed on, and was whole."""
        self._opener = Opener(key)
        self._tell_end = ended
        self._done = threading.Event()
        self._damage = ""
        super().__init__(sock, vm, clock)

    @property
    def ended(self) -> bool:
        """Whether nothing more is passed on."""
        return self._done.is_set()

    def hang_up(self) -> None:
        """The VM is ours: a giver hears that first from this."""
        with suppress(OSError):
            self._wire.shutdown(socket.SHUT_WR)

    def check(self) -> None:
        """Block until the trailer has been checked; raises DamagedStateError if the state is not whole."""
        self._done.wait()
        self.raise_damage()
        if not self._opener.complete:
            raise self._damaged("the VMM hung up before its end")

    def raise_damage(self) -> None:
        """Raises DamagedStateError if damage is why the VMM was given no more of the state."""
        if self._damage:
            raise self._damaged(self._damage)

    def _damaged(self, how: str) -> DamagedStateError:
        return DamagedStateError(
            f"the device state of {self._vm} was damaged on its way: {how}",
            "hand it over again",  # to which root only the giver knows
        )

    def _run(self) -> None:
        try:
            taken = True
            while taken and not self._opener.complete:
                taken = self._pass_on()
        except DamagedStateError as error:
            self._damage = error.message
        finally:
            _hang_up(self._vmm)
            self._done.set()
            self._tell_end(self._opener.complete and not self._damage)

    def _pass_on(self) -> bool:
        """What has arrived, once checked; False if the VMM takes no more, for reasons of its own."""
        try:
            size = self._wire.recv_into(self._opener.space())
        except OSError as error:
            raise DamagedStateError(f"the connection broke: {error.strerror}") from error
        if not size:
            self._opener.end()
        for data in self._opener.arrived(size):
            # Before: from then on it is the VMM that has the time.
            self.last_ns = self._clock()
            try:
                self._vmm.sendall(data)
            except OSError:
                return False
        return True


def _hang_up(sock: socket.socket) -> None:
    """The other end reads what is there and then an end; nobody waits for this socket any more."""
    with suppress(OSError):  # it may be closed at the other end, or not be connected any more
        sock.shutdown(socket.SHUT_RDWR)
