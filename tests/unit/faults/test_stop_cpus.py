# SPDX-License-Identifier: GPL-2.0-or-later
"""The program that stops CPUs of the other root stops no other."""

from __future__ import annotations

import mmap
import os
import sys
import time
from typing import ClassVar

import pytest

from multiroot.faults.stop_cpus import STOP_CPUS

TARGET, ORDER = 0x310 // 4, 0x300 // 4
INIT, INIT_ENDS = 0xC500, 0x8500


class Apic:
    """A local APIC that the kernel uses, too: with each target it first sends something elsewhere."""

    given: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, _page: object) -> None:
        self._target = 0
        self._kernel_busy = True

    def cast(self, kind: str) -> Apic:
        assert kind == "I"
        return self

    def __getitem__(self, register: int) -> int:
        assert register == TARGET
        return self._target

    def __setitem__(self, register: int, value: int) -> None:
        if register == ORDER:
            self.given.append((self._target >> 24, value))
            self._kernel_busy = True
            return
        self._target = 1 << 24 if self._kernel_busy else value
        self._kernel_busy = False


def test_no_order_goes_to_a_target_of_the_kernel_s(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    monkeypatch.setattr(Apic, "given", [])
    monkeypatch.setattr(os, "open", lambda *_: 7)
    monkeypatch.setattr(mmap, "mmap", lambda *_, **__: None)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: held.append(f"{len(cpus)} CPU"))
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: held.append("first"))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["-c", "2", "3"])
    exec(STOP_CPUS, {"memoryview": Apic})
    assert held == ["1 CPU", "first"]
    assert Apic.given == [(2, INIT), (2, INIT_ENDS), (3, INIT), (3, INIT_ENDS)]
