# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's change of owner while its guest stands still: one C call, in csrc/arena/switch.h.

Its steps are taken in their order and each once: the VMM says that the device state is loaded; what passed
the state on says that it was whole; the VM is taken by its owner word; the VMM lets the guest go on. Whoever
has to do something between two of them asks for the steps one by one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

from multiroot.arena._atomics import ffi, lib
from multiroot.arena.atomics import tsc

SIZE = 65536  # bytes of what a VMM says at once
_WORDS = 3  # that a line may have to hold


class Step(IntEnum):
    """How far a switch has come."""

    BEGUN = 0
    HEARD = 1
    CHECKED = 2
    TAKEN = 3
    GONE = 4


class Outcome(IntEnum):
    """What `Switch.run` has met: DONE, or why it goes no further."""

    DONE = 0
    SAID = 1  # the VMM has said something else
    HUNG_UP = 2  # the VMM has, or can't be told to go on
    TOO_LONG = 3  # what the VMM says has no end
    DAMAGED = 4  # the state was not whole
    ABORTED = 5  # somebody decided against it first
    FENCED = 6  # the owner word holds something else


_COMING, _WHOLE, _DAMAGED = range(3)
_DECIDED_TAKEN = 1


class Switch:
    """Made before the guest stops. `run` blocks and is for one thread; all others may call the rest, at any
    time: what comes after `close` changes nothing.
    """

    def __init__(self, owner: object, expected: int, desired: int, clock: Callable[[], int]) -> None:
        """`owner` is where the owner word is, which is to change from `expected` to `desired`. `clock`
        returns ns and counts evenly, as the TSC does.
        """
        self._state_changed = os.eventfd(0, os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._users = 1  # of the eventfd, whose number means another file once it is closed
        self._closed = False
        self._buffer = ffi.new("char[]", SIZE)
        self._c = ffi.new("struct mra_switch *")
        self._c.vmm = -1
        self._c.state_changed = self._state_changed
        self._c.owner, self._c.expected, self._c.desired = owner, expected, desired
        self._c.buffer, self._c.size = self._buffer, SIZE
        self._keep: list[object] = [owner]  # as long as C may look at it
        self._clock = clock
        self._began, self._began_ns = tsc(), clock()

    def attach(self, vmm: int, loaded: Sequence[bytes], go: bytes, said: bytes = b"") -> None:
        """The VMM says on socket `vmm`, in a line with all words of `loaded`, that the state is loaded, and
        goes on when it is told `go`. `said` is what was read from there before.
        """
        if len(loaded) > _WORDS or len(said) > SIZE:
            raise ValueError("too much to look for, or too much said already")
        words = [ffi.new("char[]", word) for word in loaded]
        spoken = ffi.new("char[]", go)
        self._keep += [*words, spoken]
        for number, word in enumerate(words):
            self._c.loaded[number] = word
        self._c.vmm, self._c.go, self._c.go_size = vmm, spoken, len(go)
        ffi.memmove(self._buffer, said, len(said))
        self._c.used = len(said)

    def hear(self) -> None:
        """Somebody else has heard that the state is loaded."""
        if self.step == Step.BEGUN:
            self._c.stamps[Step.HEARD] = tsc()
            self._c.step = Step.HEARD

    def state_ended(self, *, whole: bool) -> None:
        """All of the device state has been passed on, and was whole or not."""
        with self._in_use() as open_still:
            if open_still:
                lib.mra_store_release(ffi.addressof(self._c, "state"), _WHOLE if whole else _DAMAGED)
                os.eventfd_write(self._state_changed, 1)

    def run(self, until: Step) -> Outcome:
        """Take the steps up to `until`. After SAID it can be called again, and goes on with the next line.
        ABORTED once it is closed.
        """
        with self._in_use() as open_still:
            return Outcome(lib.mra_switch(self._c, until)) if open_still else Outcome.ABORTED

    def abort(self) -> bool:
        """No step TAKEN any more; False if it is too late for that."""
        return lib.mra_abort_switch(self._c) != _DECIDED_TAKEN

    @property
    def taken(self) -> bool:
        """Whether it was decided to take the VM."""
        return lib.mra_load_acquire(ffi.addressof(self._c, "decision")) == _DECIDED_TAKEN

    @property
    def step(self) -> Step:
        return Step(self._c.step)

    @property
    def seen(self) -> int:
        """What the owner word held when it was to be changed."""
        return int(self._c.seen)

    @property
    def line(self) -> bytes:
        """The last line that the VMM has said, with its end."""
        return bytes(ffi.buffer(self._buffer, SIZE)[: self._c.line])

    @property
    def rest(self) -> bytes:
        """What the VMM has said behind that line."""
        return bytes(ffi.buffer(self._buffer, SIZE)[self._c.line : self._c.used])

    def stamps(self) -> dict[Step, int]:
        """When each step was done, ns by the clock."""
        passed_ns, passed = self._clock() - self._began_ns, max(tsc() - self._began, 1)
        return {
            step: self._began_ns + (int(self._c.stamps[step]) - self._began) * passed_ns // passed
            for step in Step
            if self._c.stamps[step]
        }

    def close(self) -> None:
        """No step any more once the one that is being taken has ended; twice is fine."""
        with self._lock:
            self._closed, was = True, self._closed
        if not was:
            self._release()

    @contextmanager
    def _in_use(self) -> Iterator[bool]:
        """Whether what a step needs is still there; it is until the end of the block, then."""
        with self._lock:
            open_still = self._users > 0
            self._users += open_still
        try:
            yield open_still
        finally:
            if open_still:
                self._release()

    def _release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._state_changed)
