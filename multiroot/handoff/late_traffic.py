# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes for a guest in its blackout, sent on to where it runs afterwards.

None of it is needed for the handoff: if something fails here, frames are lost, as networks lose frames.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from multiroot.errors import MultirootError
from multiroot.phase_names import PhaseName
from multiroot.phases import AttrValue, Phase
from multiroot.vm.host import LateFrames
from multiroot.vm.instance import Instance

log = logging.getLogger(__name__)


class LateTraffic:
    """Of one VM on its way to another root: `open` and `listen` before the guest stops, then `pass_on`."""

    def __init__(self, vm: Instance, root: int, side: str) -> None:
        """To `root`; `side` names ours in phases."""
        self._vm = vm
        self._side = side
        self._root = root
        self._frames: LateFrames | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._passed: Phase | None = None

    def open(self) -> None:
        """Prepare. Any thread may call, even when nobody waits for it any more."""
        vm = self._vm
        with self._lock, self._no_harm():
            # A paused guest answers nobody, before and after.
            if vm.taps and vm.host.network and not (vm.paused or self._closed) and vm.vmm.process:
                self._frames = vm.host.network.late_frames(vm.cards, self._root, vm.vmm.process.pid)

    def listen(self) -> None:
        """Note what comes from now on."""
        if self._frames:
            with self._no_harm():
                self._frames.listen()

    def pass_on(self) -> None:
        """The guest runs elsewhere: send on what it has not got; each frame once. Any thread may call."""
        with self._lock, self._no_harm():
            if not self._frames:
                return
            clock = self._vm.host.clock
            began = clock()
            count = self._frames.pass_on()
            if count:
                log.info("%s: %d frames passed on to root %d", self._vm.name, count, self._root)
            # What comes later has not waited in the blackout.
            if not self._passed:
                attrs: dict[str, AttrValue] = {"vm": self._vm.name, "frames": count}
                self._passed = Phase(PhaseName.PASS_ON, self._side, began, clock() - began, attrs=attrs)

    @property
    def passed(self) -> tuple[Phase, ...]:
        """When what had waited was passed on, if it was."""
        return (self._passed,) if self._passed else ()

    def close(self) -> None:
        """Note nothing any more."""
        with self._lock:
            self._closed = True
            if self._frames:
                self._frames.close()
            self._frames = None

    @contextmanager
    def _no_harm(self) -> Iterator[None]:
        try:
            yield
        except MultirootError as error:
            log.warning("%s: what comes for it in the blackout may be lost: %s", self._vm.name, error)
