# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots Intel machines for tests, one alive at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intel import BOOT_S, CPUS, UP, Root

from multiroot.lab import lab, state, vmx
from multiroot.lab.bochs import Bochs
from multiroot.phases import Phases


class Machines:
    """Lends first roots that are as good as new; those of `whole` machines have an agent and an arena."""

    def __init__(self, *, whole: bool = False) -> None:
        self._parts = vmx.prepare(lab.cache(Phases("workstation")), whole=whole)
        self._whole = whole
        self._machine: Bochs | None = None
        self._folders: list[Path] = []

    @contextmanager
    def lent(self, cpus: int = CPUS) -> Iterator[Root]:
        """A first root that runs nothing but a shell, and has all CPUs of a machine with so many. The body
        leaves it like that; when it fails, or the machine has ended, the next one gets another machine.
        """
        try:
            yield self._first(cpus)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        if self._machine:
            self._machine.end()
            self._machine = None

    def close(self, *, keep_logs: bool) -> None:
        self.discard()
        for folder in self._folders if not keep_logs else ():
            shutil.rmtree(folder)

    def _first(self, cpus: int) -> Root:
        if self._machine and self._machine.alive() and self._machine.cpus == cpus:
            return Root(self._machine, self._machine.com2)
        self.discard()
        folder = state.folder(f"test-{os.getpid()}-vmx-{len(self._folders)}")
        self._folders.append(folder)
        self._machine = Bochs(self._parts, folder, cpus)
        root = Root(self._machine, self._machine.com2)
        if not self._whole:
            root.wait(UP, BOOT_S)
        return root
