# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes for a guest in its blackout, sent on to where it runs afterwards.

None of it is needed for the handoff: if something fails here, frames are lost, as networks lose frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from multiroot.clocks import wall_clock
from multiroot.errors import MultirootError
from multiroot.vm.host import LateFrames
from multiroot.vm.instance import Instance

log = logging.getLogger(__name__)

# Before QEMU says that the guest stands still it does so for a while. A frame that comes twice does no harm.
MARGIN_NS = 2_000_000


class LateTraffic:
    """Of one VM on its way to another root: `open` and `listen` before the guest stops, then `pass_on`."""

    def __init__(self, vm: Instance, root: int) -> None:
        self._vm = vm
        self._root = root
        self._frames: LateFrames | None = None

    def open(self) -> None:
        """Prepare; `expected` tells whether there is anything to wait for."""
        vm = self._vm
        # A paused guest answers nobody, before and after.
        if vm.taps and vm.host.network and not vm.paused:
            with self._no_harm():
                self._frames = vm.host.network.late_frames(vm.taps, self._root)

    @property
    def expected(self) -> bool:
        return self._frames is not None

    def listen(self) -> None:
        """Note what comes from now on."""
        if self._frames:
            with self._no_harm():
                self._frames.listen()

    def pass_on(self, stopped_ns: int) -> None:
        """Send on what has come since the guest stopped, ns on the machine-wide clock; each frame once."""
        if not self._frames:
            return
        since_ns = stopped_ns - MARGIN_NS - wall_clock(self._vm.host.clock).offset()
        with self._no_harm():
            if count := self._frames.pass_on(since_ns):
                log.info("%s: %d frames passed on to root %d", self._vm.name, count, self._root)

    def close(self) -> None:
        """Note nothing any more."""
        if self._frames:
            self._frames.close()

    @contextmanager
    def _no_harm(self) -> Iterator[None]:
        try:
            yield
        except MultirootError as error:
            log.warning("%s: what comes for it in the blackout may be lost: %s", self._vm.name, error)
