# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots lab machines for tests."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from multiroot.coordinator.join import CONSOLES
from multiroot.lab import lab as labs
from multiroot.lab import state
from multiroot.lab.lab import Lab, Options
from multiroot.phases import Phases

_KEPT = f"tail -n 400 {CONSOLES}/console-root-*.log 2>/dev/null || true"
MOST_ALIVE = 1  # two emulated machines on two CPUs slow each other down more than booting again costs


class Labs:
    """`get(kernel=..., machine=..., ...)` gives a running lab for these options, the same one as long
    as it lives.

    A test that breaks its lab calls `discard` on it. `fresh` boots one that no other test has used. All use
    `accelerator`, if there is one, else KVM where it works. `kernel` is the roots' in place of what is usual.
    """

    def __init__(self, accelerator: str | None = None, kernel: str | None = None) -> None:
        self._usual = Options(accelerator=accelerator)
        self._kernel = kernel
        self.phases = Phases("workstation")
        self._alive: dict[Options, Lab] = {}
        self._count = 0

    def kernel(self, usual: str) -> str:
        """Of a root, in place of `usual`; `labs.kernel_name` tells what it is called in the lab machine."""
        return self._kernel or usual

    def get(self, **chosen: object) -> Lab:
        options = replace(self._usual, **chosen)  # type: ignore[arg-type]
        lab = self._alive.get(options)
        if lab and lab.state.alive():
            return lab
        return self._boot(options)

    def fresh(self, **chosen: object) -> Lab:
        options = replace(self._usual, **chosen)  # type: ignore[arg-type]
        if options in self._alive:
            self.discard(self._alive[options])
        return self._boot(options)

    def make_room(self) -> None:
        """End machines, so that one more may be alive."""
        self._alive = {each: lab for each, lab in self._alive.items() if lab.state.alive()}
        while len(self._alive) >= MOST_ALIVE:
            self.discard(next(iter(self._alive.values())))

    def discard(self, lab: Lab) -> None:
        self._alive = {options: each for options, each in self._alive.items() if each is not lab}
        lab.down()

    def kept(self) -> list[tuple[str, str]]:
        """What the old roots keep of new ones that did not come up or ended: their last messages, and what
        their CPUs did. A title and a text for each machine; MultirootError when one does not answer.
        """
        return [
            ("messages of other roots", lab.run(["sh", "-c", _KEPT], timeout=30).stdout)
            for lab in self._alive.values()
            if lab.state.alive()
        ]

    def close(self, *, keep_logs: bool) -> None:
        for lab in list(self._alive.values()):
            self.discard(lab)
        for number in range(self._count if not keep_logs else 0):
            shutil.rmtree(state.folder(self._name(number)), ignore_errors=True)

    def _boot(self, options: Options) -> Lab:
        self.make_room()
        name = self._name(self._count)
        self._count += 1
        self._alive[options] = labs.up(replace(options, name=name), self.phases)
        return self._alive[options]

    @staticmethod
    def _name(number: int) -> str:
        return f"test-{os.getpid()}-{number}"
